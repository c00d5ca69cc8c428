//! The test house of the jukebox: `rig` starts the real parts (player, office, broker, web server) for tests and figures;
//! `world` simulates all of them, `nights` lives in it, `limit` says what was possible.

pub mod figures;
pub mod fuzz;
pub mod lab;
pub mod limit;
pub mod nights;
pub mod rig;
pub mod world;
