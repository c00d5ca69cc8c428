//! Everything that touches /dev: sound, panel, buttons. Nothing here knows the network, MQTT or a codec.
//! The only unsafe code of the house is in [`rt`].

#![deny(unsafe_code)]

pub mod buttons;
mod dither;
pub mod gpio;
pub mod output;
pub mod panel;
pub mod profile;
#[allow(unsafe_code)]
pub mod rt;
mod tty;
pub mod virt;
pub mod vitals;
