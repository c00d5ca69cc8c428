//! A line that is fed by hand: frames in, one track after the other; each call returns when its frames are in the ring.

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use jukebox_board::output::Content;
use jukebox_core::sound::{EntryId, Heard, OutputState};

use super::Settings;
use super::feed::Start;
use super::line::{Line, Shared};

/// Steps of waiting for a device to play what it has.
const STEP: Duration = Duration::from_millis(5);
/// Steps of waiting for room in the ring.
const ROOM: Duration = Duration::from_millis(200);

/// The device does not open, or went away: what the system said.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoOutput(String);

/// Plays what it is given, gapless between tracks of one rate.
pub struct Player {
    line: Line,
    shared: Shared,
    states: Receiver<OutputState>,
    entry: u32,
    given: u64,
}

impl Player {
    /// Opens nothing yet.
    pub fn new(settings: Settings) -> Self {
        let (tell, states) = channel();
        let shared = Shared::new();
        let line = Line::new(settings, shared.clone(), move |state| {
            let _ = tell.send(state); // nobody asks any more
        });
        Self { line, shared, states, entry: 0, given: 0 }
    }

    /// Begins a track. Waits for the device to be open at its rate.
    ///
    /// # Errors
    /// No device.
    pub fn begin(&mut self, rate: u32, content: Content) -> Result<(), NoOutput> {
        while !self.line.is_fit(rate) {
            self.turn(STEP)?;
        }
        self.entry += 1;
        self.given = 0;
        if let Some(feed) = &mut self.line.feed {
            let entry = EntryId(self.entry);
            feed.begin(Start { generation: 0, entry, at: 0, rate, clock: rate, content, joined: true });
        }
        Ok(())
    }

    /// Takes interleaved stereo.
    ///
    /// # Errors
    /// The device went away.
    pub fn put(&mut self, frames: &[f32]) -> Result<(), NoOutput> {
        self.given += (frames.len() / 2) as u64;
        if let Some(feed) = &mut self.line.feed {
            feed.put(frames);
        }
        while !self.line.feed.as_ref().is_none_or(super::feed::Feed::is_clear) {
            self.turn(ROOM)?;
        }
        Ok(())
    }

    /// The track ends with what was put.
    pub fn end(&mut self) {
        if let Some(feed) = &mut self.line.feed {
            feed.end(self.given);
        }
        self.line.pump(false);
    }

    /// Plays what is in the ring to its end and closes the device; at most `patience` longer than it should take.
    ///
    /// # Errors
    /// The device went away or does not play.
    pub fn finish(mut self, patience: Duration) -> Result<Heard, NoOutput> {
        self.line.finish();
        let begun = Instant::now();
        while !self.line.is_drained() {
            self.turn(STEP)?;
            if begun.elapsed() > patience {
                return Err(NoOutput("the device does not play what it was given".into()));
            }
        }
        let heard = self.shared.controls.heard();
        self.line.close();
        Ok(heard)
    }

    /// Where the sound is.
    pub fn heard(&self) -> Heard {
        self.shared.controls.heard()
    }

    /// Moves what can be moved; waits a step if nothing could.
    fn turn(&mut self, step: Duration) -> Result<(), NoOutput> {
        let seen = self.shared.wake.rung();
        self.line.tick();
        if let Some(OutputState::Missing { why }) = self.states.try_iter().last() {
            return Err(NoOutput(why.to_string()));
        }
        if !self.line.pump(false) {
            self.shared.wake.wait(seen, step);
        }
        Ok(())
    }
}
