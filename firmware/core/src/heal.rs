//! Truth: a player that should sound and does not is noticed, and mends itself, a bigger step each time.
//!
//! *Still*: time in which frames were due, everything they take was there, and none left the DAC. A device that is missing
//! does not count: it is tried every second anyway, and no restart brings it back. Yet it does not begin anew what was
//! counted before, for a device that falls mute again and again comes and goes.

use alloc::format;
use alloc::string::ToString;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::checkpoint::Intent;
use crate::exchange::Output;
use crate::jukebox::Jukebox;
use crate::sound::OutputState;
use crate::time::{Instant, Span};

/// What is done about frames that stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The PCM is closed and opened again.
    Reopen,
    /// All of the sound path is made anew, with a decoder thread of its own; the old one may hang for ever.
    Restart,
    /// The process ends with an error: whoever watches over it starts it anew.
    Exit,
}

/// When each is taken. With the two seconds after which systemd starts it again, the last one ends the silence within ten.
const STEPS: [(Span, Step); 3] =
    [(Span::s(3), Step::Reopen), (Span::ms(4_750), Step::Restart), (Span::ms(6_500), Step::Exit)];
/// Two looks farther apart than this tell nothing of what was between.
const BLIND: Span = Span::s(1);

/// Whether frames should leave the DAC just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// They should.
    Frames,
    /// They should, but there is no device.
    Device,
    /// They should not.
    Nothing,
}

/// Watches the count of frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct Healer {
    still: Span,
    looked: Option<Instant>,
    frames: u64,
    taken: usize,
}

impl Healer {
    /// A look at `frames`, all that ever left the DAC. What is to be done now, and how long they have been still.
    pub fn look(&mut self, now: Instant, frames: u64, due: Due) -> Option<(Step, Span)> {
        let passed = self.looked.replace(now).map_or(Span(0), |t| now.since(t));
        if frames > self.frames || due == Due::Nothing {
            (self.still, self.taken) = (Span(0), 0);
        } else if due == Due::Frames {
            self.still.0 += passed.0.min(BLIND.0);
        }
        self.frames = frames;
        let &(at, step) = STEPS.get(self.taken)?;
        (self.still >= at).then(|| {
            self.taken += 1;
            (step, self.still)
        })
    }
}

impl Jukebox {
    /// Whether music should leave the DAC just now, with everything there that it takes: then a count of frames that stands
    /// still is a fault of ours.
    pub fn should_move(&self) -> bool {
        self.due() == Due::Frames
    }

    fn due(&self) -> Due {
        if self.playback.intent() != Intent::Playing || !self.playback.has_given() {
            Due::Nothing
        } else if matches!(self.playback.output_state(), OutputState::Missing { .. }) {
            Due::Device
        } else {
            Due::Frames
        }
    }

    /// Mends a sound path whose frames stand still.
    pub(crate) fn heal(&mut self, frames: u64) {
        let due = self.due();
        let Some((step, still)) = self.healer.look(self.now, frames, due) else { return };
        let cause = match self.playback.output_state() {
            OutputState::Open { name, .. } => format!("{name} is open and no frame leaves it"),
            OutputState::Closed => "no output was opened".into(),
            OutputState::Missing { why } => why.to_string(),
        };
        self.event("heal", json!({"step": step, "still_ms": still.as_ms(), "cause": cause}));
        self.push(Output::Heal(step));
        if step == Step::Restart {
            // The new one knows nothing.
            let at = self.playback.position(self.line());
            self.playback.give_again(at);
            self.order_volume(20);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// Looks every 250 ms; when which step was taken, in ms.
    fn watch(seconds: u64, at: impl Fn(u64) -> (u64, Due)) -> Vec<(u64, Step)> {
        let mut healer = Healer::default();
        let looks = (0..seconds * 4).map(|n| n * 250);
        looks
            .filter_map(|ms| {
                let (frames, due) = at(ms);
                healer.look(Instant(ms * 1_000), frames, due).map(|(step, _)| (ms, step))
            })
            .collect()
    }

    #[test]
    fn steps_grow_and_the_last_is_taken_once() {
        let steps = watch(60, |ms| (ms.min(1_000), Due::Frames));
        assert_eq!(steps, [(4_000, Step::Reopen), (5_750, Step::Restart), (7_500, Step::Exit)]);
    }

    #[test]
    fn what_helped_begins_anew_and_planned_silence_is_none() {
        let helped = watch(20, |ms| (if (1_000..5_000).contains(&ms) { 1_000 } else { ms }, Due::Frames));
        assert_eq!(helped, [(4_000, Step::Reopen)]);
        assert_eq!(watch(60, |ms| (0, if ms % 2_000 == 0 { Due::Nothing } else { Due::Frames })), []);
    }

    #[test]
    fn a_missing_device_is_waited_for_and_one_that_comes_and_goes_is_not() {
        assert_eq!(watch(3_600, |_| (0, Due::Device)), []);
        let steps = watch(60, |ms| (0, if ms % 1_000 == 0 { Due::Device } else { Due::Frames }));
        assert_eq!(steps.iter().map(|s| s.1).collect::<Vec<_>>(), STEPS.map(|s| s.1));
        assert!(steps[2].0 <= 12_000);
    }

    #[test]
    fn a_machine_that_slept_did_not_stand_still() {
        let mut healer = Healer::default();
        for hour in 0..10 {
            let _ = healer.look(Instant(hour * 3_600_000_000), 0, Due::Frames);
        }
        assert!(healer.still <= Span::s(10));
    }
}
