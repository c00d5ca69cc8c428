//! Hostile bytes for `records`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| jukebox_tests::fuzz::records(bytes));
