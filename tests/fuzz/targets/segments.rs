//! Hostile bytes for `segments`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| jukebox_tests::fuzz::segments(bytes));
