//! A station's clock is not the DAC's: what is buffered is held where it was by playing a little faster or slower.
//!
//! *Level*: what is buffered, in seconds. *Pull*: how much faster the station is played than the DAC's clock says, in parts
//! per million; at most [`MOST_PPM`], which nobody hears. A proportional and integral controller on the smoothed level,
//! critically damped (Åström and Murray, "Feedback Systems", chapter 11): with P = 400 ppm a second of level and an integral
//! time of 4 / P, two crystals 100 ppm apart move the level by no more than a tenth of a second, for ever.

/// Most that the rate is changed, in parts per million.
pub const MOST_PPM: f64 = 200.0;
/// Pull a second that the level is off.
const P: f64 = 400.0;
/// Pull a second that the level is off, and a second that it lasts: P / (4 / P).
const I: f64 = P * P * 1e-6 / 4.0;
/// The level is smoothed over so many seconds: packets come in bursts.
const SMOOTH_S: f64 = 20.0;
/// It is watched for so long before it is held, in seconds.
const WATCH_S: f64 = 10.0;
/// What is off by more was no clock: a pause, or what the station left out. It is held where it is then.
const STEP_S: f64 = 1.0;

/// Follows a station's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Drift {
    watched: f64,
    smooth: f64,
    held: Option<f64>,
    integral: f64,
}

impl Drift {
    /// After another `seconds`, with `level` seconds buffered: the pull in parts per million.
    pub fn look(&mut self, seconds: f64, level: f64) -> f64 {
        if self.watched == 0.0 {
            self.smooth = level;
        }
        self.watched += seconds;
        self.smooth += (level - self.smooth) * (seconds / SMOOTH_S.min(self.watched.max(seconds))).min(1.0);
        let Some(held) = self.held else {
            self.held = (self.watched >= WATCH_S).then_some(self.smooth);
            return self.integral;
        };
        if (level - held).abs() > STEP_S {
            (self.watched, self.held) = (0.0, None);
            return self.integral;
        }
        let off = self.smooth - held;
        let pull = P * off + self.integral;
        // What is at its limit already learns nothing.
        if pull.abs() < MOST_PPM {
            self.integral = (self.integral + I * off * seconds).clamp(-MOST_PPM, MOST_PPM);
        }
        pull.clamp(-MOST_PPM, MOST_PPM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Twelve hours of a station whose clock is `ppm` fast, sending 26 ms packets ten at a time, now and then late: the least
    /// and the most that was buffered from the first minute on, and the pull at the end.
    fn night(ppm: f64, late_s: f64) -> (f64, f64, f64) {
        let (mut drift, mut came, mut played, mut pull, mut random) = (Drift::default(), 3.0, 0.0, 0.0, 7u64);
        let (mut least, mut most) = (f64::MAX, f64::MIN);
        let (packet, mut next) = (1_152.0 / 44_100.0, 0.0);
        let mut now = 0.0;
        while now < 43_200.0 {
            now += packet;
            while next <= now {
                came += 10.0 * packet;
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let late = (random >> 40) as f64 / (1u64 << 24) as f64 * late_s;
                next = came * (1.0 - ppm * 1e-6) - 3.0 + late;
            }
            played += packet * (1.0 + pull * 1e-6);
            let level = came - played;
            if now > 60.0 {
                (least, most) = (level.min(least), level.max(most));
            }
            pull = drift.look(packet, level);
        }
        (least, most, pull)
    }

    #[test]
    fn twelve_hours_of_two_clocks_100_ppm_apart_keep_the_level() {
        for ppm in [-100.0, 0.0, 100.0] {
            let (least, most, pull) = night(ppm, 0.1);
            assert!((pull - ppm).abs() < 15.0, "{ppm} ppm: pulled by {pull}");
            assert!(least > 2.4 && most < 3.6, "{ppm} ppm: {least} to {most} s");
        }
    }

    #[test]
    fn a_pause_is_no_drift() {
        let mut drift = Drift::default();
        let _ = (0..2_000).map(|_| drift.look(0.026, 3.0)).last();
        let pulls = (0..20_000).map(|_| drift.look(0.026, 33.0).abs());
        assert!(pulls.fold(0.0, f64::max) < 1.0, "half a minute more is the new level");
    }

    #[test]
    fn the_pull_has_its_limit() {
        let mut drift = Drift::default();
        let mut level = 3.0;
        for _ in 0..200_000 {
            assert!(drift.look(0.026, level).abs() <= MOST_PPM);
            level += 0.026 * 300e-6;
        }
    }
}
