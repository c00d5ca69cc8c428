//! The test house of the jukebox: `rig` starts the real parts (player, office, broker, web server) for tests and figures.

pub mod figures;
pub mod fuzz;
pub mod rig;
pub mod world;
