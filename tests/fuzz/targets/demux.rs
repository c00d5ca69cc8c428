//! Hostile bytes for `demux`.
#![no_main]

use std::sync::Once;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // libFuzzer's hook would end the process at a panic that publish catches.
    static QUIET: Once = Once::new();
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    jukebox_tests::fuzz::demux(bytes);
});
