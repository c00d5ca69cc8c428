//! SSD1306 on I2C: 128 by 64, one bit a pixel. Only what changed goes over the bus.
//!
//! A whole picture is 1 kB, 29 ms at 400 kHz; a second of a progress bar is some twenty bytes.

use std::io;

use embedded_graphics::pixelcolor::BinaryColor;
use embedded_graphics::primitives::Rectangle;
use embedded_hal::i2c::I2c;
use jukebox_core::view::View;
use ssd1306::command::AddrMode;
use ssd1306::mode::BasicMode;
use ssd1306::prelude::{Brightness, DisplayRotation, DisplaySize128x64, I2CInterface};
use ssd1306::{I2CDisplayInterface, Ssd1306};

use super::draw::{self, Look};
use super::frame::Canvas;
use crate::profile::Rotation;

/// A panel that was started.
pub struct Oled<I> {
    device: Ssd1306<I2CInterface<I>, DisplaySize128x64, BasicMode>,
    canvas: Canvas<BinaryColor>,
    dim: Option<bool>,
}

impl<I: I2c> Oled<I> {
    /// Starts the panel at `address`. What it shows is chance until the first view.
    ///
    /// # Errors
    /// It does not answer.
    pub fn start(i2c: I, address: u8, rotation: Rotation) -> io::Result<Self> {
        let rotation = match rotation {
            Rotation::None | Rotation::Quarter => DisplayRotation::Rotate0,
            Rotation::Half | Rotation::ThreeQuarters => DisplayRotation::Rotate180,
        };
        let bus = I2CDisplayInterface::new_custom_address(i2c, address);
        let mut device = Ssd1306::new(bus, DisplaySize128x64, rotation);
        let silent = |_| io::Error::other(format!("no SSD1306 answers at {address:#04x} of the I2C bus"));
        device.init_with_addr_mode(AddrMode::Horizontal).map_err(silent)?;
        Ok(Self { device, canvas: Canvas::new(&draw::OLED), dim: None })
    }

    /// Shows `view`; returns whether the next beat looks different.
    ///
    /// # Errors
    /// The bus failed: what is shown is not known any more.
    pub fn show(&mut self, view: &View, look: &Look) -> io::Result<bool> {
        let paged = self.canvas.draw(view, look, &draw::OLED);
        let lost = |_| io::Error::other("the SSD1306 does not answer any more");
        if self.dim.replace(look.dim) != Some(look.dim) {
            let brightness = if look.dim { Brightness::DIMMEST } else { Brightness::NORMAL };
            self.device.set_brightness(brightness).map_err(lost)?;
        }
        for area in self.canvas.changes() {
            let bytes = columns(self.canvas.next().part(area), area);
            let (x, y) = (area.top_left.x as u8, area.top_left.y as u8);
            let (width, height) = (area.size.width as u8, area.size.height as u8);
            self.device.set_draw_area((x, y), (x + width, y + height)).map_err(lost)?;
            self.device.draw(&bytes).map_err(lost)?;
        }
        self.canvas.accept();
        Ok(paged)
    }
}

/// Pixels of one band as the SSD1306 takes them: a byte a column, the top row in bit 0.
fn columns(pixels: impl Iterator<Item = BinaryColor>, area: Rectangle) -> Vec<u8> {
    let width = area.size.width as usize;
    let mut bytes = vec![0; width];
    for (n, pixel) in pixels.enumerate() {
        bytes[n % width] |= u8::from(pixel.is_on()) << (n / width % 8);
    }
    bytes
}
