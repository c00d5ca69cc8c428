//! A panel on a bus of this machine, opened when it is needed, and again after the bus failed.

use std::io;
use std::path::PathBuf;

use embedded_hal::delay::DelayNs;
use embedded_hal::digital::OutputPin;
use jukebox_core::view::View;
use linux_embedded_hal::spidev::{SpiModeFlags, SpidevOptions};
use linux_embedded_hal::{Delay, I2cdev, SpidevDevice};

use super::draw::Look;
use super::lcd::Lcd;
use super::oled::Oled;
use crate::gpio::{self, Line};
use crate::profile::Wiring;

/// A panel as it is connected.
pub struct Wired {
    wiring: Wiring,
    chip: Option<PathBuf>,
    open: Option<Open>,
}

enum Open {
    Oled(Oled<I2cdev>),
    Lcd { lcd: Box<Lcd<SpidevDevice, Line>>, backlight: Option<Line>, lit: bool, _reset: Option<Line> },
}

impl Wired {
    /// Nothing is opened before the first view. Lines of an LCD are taken from `chip`, else from the header's.
    pub fn new(wiring: Wiring, chip: Option<PathBuf>) -> Self {
        Self { wiring, chip, open: None }
    }

    /// Shows `view`; returns whether the next beat looks different. After an error the next call starts the panel anew.
    ///
    /// # Errors
    /// The panel is not there, or we may not use its bus.
    pub fn show(&mut self, view: &View, look: &Look) -> io::Result<bool> {
        if self.open.is_none() {
            self.open = Some(self.start()?);
        }
        let shown = match &mut self.open {
            Some(Open::Oled(oled)) => oled.show(view, look),
            Some(Open::Lcd { lcd, backlight, lit, .. }) => {
                let shown = lcd.show(view, look);
                // Dark until there is something to see.
                if let (Ok(_), Some(line), false) = (&shown, backlight, *lit) {
                    *lit = line.set_high().is_ok();
                }
                shown
            }
            None => Ok(false),
        };
        if shown.is_err() {
            self.open = None;
        }
        shown
    }

    fn start(&self) -> io::Result<Open> {
        match &self.wiring {
            Wiring::Ssd1306 { bus, address, rotation } => {
                let i2c = I2cdev::new(bus).map_err(|e| io::Error::other(format!("{}: {e}", bus.display())))?;
                Ok(Open::Oled(Oled::start(i2c, *address, *rotation)?))
            }
            Wiring::St7789 { bus, hz, dc, backlight, reset, rotation } => {
                let failed = |e: &dyn std::fmt::Display| io::Error::other(format!("{}: {e}", bus.display()));
                let mut spi = SpidevDevice::open(bus).map_err(|e| failed(&e))?;
                let options = SpidevOptions::new().max_speed_hz(*hz).mode(SpiModeFlags::SPI_MODE_0).build();
                spi.configure(&options).map_err(|e| failed(&e))?;
                let chip = self.chip.clone().map_or_else(gpio::chip, Ok)?;
                let output = |pin: &u8, high| Line::output(&chip, *pin, high);
                let backlight = backlight.as_ref().map(|pin| output(pin, false)).transpose()?;
                let mut reset = reset.as_ref().map(|pin| output(pin, true)).transpose()?;
                if let Some(line) = &mut reset {
                    // At least 10 us low, and 120 ms until it listens (ST7789V data sheet, section 7.4.5).
                    line.set_low().map_err(io::Error::other)?;
                    Delay.delay_ms(1);
                    line.set_high().map_err(io::Error::other)?;
                    Delay.delay_ms(120);
                }
                let lcd = Lcd::start(spi, output(dc, true)?, *rotation, &mut Delay)?;
                Ok(Open::Lcd { lcd: Box::new(lcd), backlight, lit: false, _reset: reset })
            }
        }
    }
}
