//! ST7789 on SPI: 240 by 240, 16 bits a pixel. Only what changed goes over the bus.
//!
//! A whole picture is 115 kB, 23 ms at 40 MHz.

use std::fmt;
use std::io;

use embedded_graphics::pixelcolor::Rgb565;
use embedded_hal::delay::DelayNs;
use embedded_hal::digital::OutputPin;
use embedded_hal::spi::SpiDevice;
use jukebox_core::view::View;
use mipidsi::interface::{Interface, InterfaceKind};
use mipidsi::models::ST7789;
use mipidsi::options::{ColorInversion, Orientation, Rotation as Turn};
use mipidsi::{Builder, Display, NoResetPin};

use super::draw::{self, Look};
use super::frame::Canvas;
use crate::profile::Rotation;

/// Most that spidev takes at once, in bytes (`spidev.bufsiz` of the kernel).
const CHUNK: usize = 4096;

/// A panel that was started.
pub struct Lcd<S: SpiDevice, D: OutputPin> {
    device: Display<Wire<S, D>, ST7789, NoResetPin>,
    canvas: Canvas<Rgb565>,
}

impl<S: SpiDevice, D: OutputPin> Lcd<S, D> {
    /// Starts the panel behind `spi` and the data/command line `dc`. What it shows is chance until the first view.
    ///
    /// # Errors
    /// The bus failed. Whether a panel is there cannot be told: it only listens.
    pub fn start(spi: S, dc: D, rotation: Rotation, delay: &mut impl DelayNs) -> io::Result<Self> {
        let turn = match rotation {
            Rotation::None => Turn::Deg0,
            Rotation::Quarter => Turn::Deg90,
            Rotation::Half => Turn::Deg180,
            Rotation::ThreeQuarters => Turn::Deg270,
        };
        let device = Builder::new(ST7789, Wire { spi, dc, chunk: Vec::with_capacity(CHUNK) })
            .display_size(240, 240)
            .orientation(Orientation::new().rotate(turn))
            // The panels are of the IPS kind, which shows white where no voltage is.
            .invert_colors(ColorInversion::Inverted)
            .init(delay)
            .map_err(|e| io::Error::other(format!("the ST7789 does not start: {e:?}")))?;
        Ok(Self { device, canvas: Canvas::new(&draw::LCD) })
    }

    /// Shows `view`; returns whether the next beat looks different.
    ///
    /// # Errors
    /// The bus failed: what is shown is not known any more.
    pub fn show(&mut self, view: &View, look: &Look) -> io::Result<bool> {
        let paged = self.canvas.draw(view, look, draw::lcd(look.dim));
        for area in self.canvas.changes() {
            let (x, y) = (area.top_left.x as u16, area.top_left.y as u16);
            let (end_x, end_y) = (x + area.size.width as u16 - 1, y + area.size.height as u16 - 1);
            let pixels = self.canvas.next().part(area);
            self.device.set_pixels(x, y, end_x, end_y, pixels).map_err(io::Error::other)?;
        }
        self.canvas.accept();
        Ok(paged)
    }
}

/// Four wires: SPI and the data/command line, low for commands.
struct Wire<S, D> {
    spi: S,
    dc: D,
    chunk: Vec<u8>,
}

/// The bus or its data/command line failed.
#[derive(Debug)]
struct WireError(String);

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the bus of the ST7789 failed: {}", self.0)
    }
}

impl std::error::Error for WireError {}

fn failed(e: impl fmt::Debug) -> WireError {
    WireError(format!("{e:?}"))
}

impl<S: SpiDevice, D: OutputPin> Interface for Wire<S, D> {
    type Word = u8;
    type Error = WireError;
    const KIND: InterfaceKind = InterfaceKind::Serial4Line;

    fn send_command(&mut self, command: u8, args: &[u8]) -> Result<(), WireError> {
        self.dc.set_low().map_err(failed)?;
        self.spi.write(&[command]).map_err(failed)?;
        self.dc.set_high().map_err(failed)?;
        if args.is_empty() { Ok(()) } else { self.spi.write(args).map_err(failed) }
    }

    fn send_pixels<const N: usize>(&mut self, pixels: impl IntoIterator<Item = [u8; N]>) -> Result<(), WireError> {
        self.chunk.clear();
        for pixel in pixels {
            if self.chunk.len() + N > CHUNK {
                self.spi.write(&self.chunk).map_err(failed)?;
                self.chunk.clear();
            }
            self.chunk.extend(pixel);
        }
        if self.chunk.is_empty() { Ok(()) } else { self.spi.write(&self.chunk).map_err(failed) }
    }

    fn send_repeated_pixel<const N: usize>(&mut self, pixel: [u8; N], count: u32) -> Result<(), WireError> {
        self.send_pixels(std::iter::repeat_n(pixel, count as usize))
    }
}
