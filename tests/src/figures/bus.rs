//! How long the panel's wires are busy while music plays: what the drivers send, counted, at the clock of the profiles.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::rc::Rc;

use embedded_hal::delay::DelayNs;
use embedded_hal::digital::{self, OutputPin};
use embedded_hal::i2c::{self, I2c};
use embedded_hal::spi::{self, SpiDevice};
use jukebox_board::panel::Look;
use jukebox_board::panel::lcd::Lcd;
use jukebox_board::panel::oled::Oled;
use jukebox_board::profile::{Rotation, Wiring, all};
use jukebox_core::view::{Icon, Progress, Strip, Text, View};

/// Bits that a second the bus of `i2c_arm_baudrate=400000` carries; a byte takes nine.
const I2C_HZ: f64 = 400_000.0;
/// A minute of a song.
const SECONDS: u32 = 60;

/// Counts the clocks of the wire.
#[derive(Clone, Default)]
struct Wire(Rc<Cell<usize>>);

impl Wire {
    fn carry(&self, clocks: usize) {
        self.0.set(self.0.get() + clocks);
    }
}

impl i2c::ErrorType for Wire {
    type Error = Infallible;
}

impl I2c for Wire {
    fn transaction(&mut self, _: u8, operations: &mut [i2c::Operation<'_>]) -> Result<(), Infallible> {
        for operation in operations {
            let bytes = match operation {
                i2c::Operation::Write(bytes) => bytes.len(),
                i2c::Operation::Read(bytes) => bytes.len(),
            };
            self.carry(9 * (bytes + 1) + 2); // the address, start and stop
        }
        Ok(())
    }
}

impl spi::ErrorType for Wire {
    type Error = Infallible;
}

impl SpiDevice for Wire {
    fn transaction(&mut self, operations: &mut [spi::Operation<'_, u8>]) -> Result<(), Infallible> {
        for operation in operations {
            if let spi::Operation::Write(bytes) = operation {
                self.carry(8 * bytes.len());
            }
        }
        Ok(())
    }
}

impl digital::ErrorType for Wire {
    type Error = Infallible;
}

impl OutputPin for Wire {
    fn set_low(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

struct NoDelay;

impl DelayNs for NoDelay {
    fn delay_ns(&mut self, _: u32) {}
}

/// The share of the time in which each panel's bus is busy with a song that plays, for the conditions of a figure.
///
/// # Errors
/// A driver refuses a wire that takes everything.
pub(super) fn busy() -> io::Result<String> {
    let playing = |at_s: u32| View {
        icon: Icon::Play,
        headline: Text::new("Playing"),
        title: Text::new("上を向いて歩こう"),
        artist: Text::new("Sakamoto Kyū"),
        detail: Text::new("Next: Maple Leaf Rag"),
        progress: Some(Progress { at_s, of_s: 183 }),
        strip: Some(Strip { bots: true, volume: 35, up_next: 3, ..Strip::default() }),
        ..View::default()
    };
    let minute = |wire: &Wire, show: &mut dyn FnMut(&View) -> io::Result<bool>| {
        show(&playing(60))?;
        wire.0.set(0);
        (61..=60 + SECONDS).try_for_each(|at| show(&playing(at)).map(|_| ()))?;
        io::Result::Ok(wire.0.get() as f64 / f64::from(SECONDS))
    };
    let look = Look::default();
    let wire = Wire::default();
    let mut oled = Oled::start(wire.clone(), 0x3c, Rotation::None)?;
    let oled = minute(&wire, &mut |view| oled.show(view, &look))? / I2C_HZ;
    let wire = Wire::default();
    let mut lcd = Lcd::start(wire.clone(), wire.clone(), Rotation::None, &mut NoDelay)?;
    let clocks = minute(&wire, &mut |view| lcd.show(view, &look))?;
    let hz = |wiring: Option<Wiring>| match wiring {
        Some(Wiring::St7789 { hz, .. }) => Some(hz),
        _ => None,
    };
    let hz = f64::from(all().find_map(|p| hz(p.panel)).unwrap_or(40_000_000));
    Ok(format!(
        "the bus apart: SSD1306 {:.2} % at {:.1} MHz, ST7789 {:.3} % at {:.0} MHz",
        oled * 100.0,
        I2C_HZ / 1e6,
        clocks / hz * 100.0,
        hz / 1e6
    ))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_second_of_a_song_keeps_a_bus_busy_for_a_moment() {
        let told = super::busy().unwrap();
        let shares: Vec<f64> =
            told.split(' ').zip(told.split(' ').skip(1)).filter(|p| p.1 == "%").map(|p| p.0.parse().unwrap()).collect();
        assert!(shares.len() == 2 && shares.iter().all(|s| *s > 0.0 && *s < 1.0), "{told}");
    }
}
