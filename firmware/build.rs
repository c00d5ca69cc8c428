//! Tells the program when it was built, in seconds since 1970: the earliest time that it believes in.

use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    // Builds that are to be the same bit for bit name their date (reproducible-builds.org, SOURCE_DATE_EPOCH).
    let named = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|s| s.parse::<u64>().ok());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    println!("cargo::rustc-env=JUKEBOX_BUILT={}", named.unwrap_or_else(now));
}
