//! Everything the player decides, and the formats both ends share.
//!
//! The crate is sans-I/O: no clock, no randomness, no thread, no file. Time comes in as a number, results of the outside
//! world come in as inputs, wishes go out as data. So a recorded script of inputs replays bit for bit.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod budget;
pub mod card;
pub mod checkpoint;
pub mod command;
pub mod event;
pub mod exchange;
pub mod fallback;
pub mod gesture;
pub mod heal;
pub mod history;
pub mod homeassistant;
pub mod jukebox;
mod ledger;
pub mod library;
pub mod link;
pub mod live;
mod obey;
mod period;
mod plan;
pub mod planner;
pub mod playback;
pub mod queue;
pub mod reason;
pub mod reload;
pub mod segment;
pub mod sound;
pub mod station;
mod supply;
mod tell;
pub mod time;
pub mod view;
pub mod wire;
pub mod wish;
