//! What reaches the DAC, sample for sample: files, segments, borders, flushes, devices that go away.
//!
//! The references are other people's decoders (flac, ffmpeg) or the codec called directly (libopus); the sink is the
//! virtual DAC, which stands where a real one would. Material is made here, a few seconds long.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod sound {
    mod alsa;
    mod crossfade;
    mod formats;
    mod material;
    mod orders;
    mod panics;
    mod play;
    mod races;
    mod rig;
    mod segments;
    mod splices;
}
