//! Hostile bytes for `pages`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| jukebox_tests::fuzz::pages(bytes));
