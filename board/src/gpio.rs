//! Lines of the GPIO character device: which chip they are on, and outputs as drivers want them.

use std::io;
use std::path::{Path, PathBuf};

use embedded_hal::digital::{Error, ErrorKind, ErrorType, OutputPin};
use gpiocdev::Request;
use gpiocdev::line::Value;

/// Labels of the chip that the 40-pin header of a Raspberry Pi hangs on (kernel, drivers/pinctrl/bcm and pinctrl-rp1).
const HEADERS: [&str; 4] = ["pinctrl-rp1", "pinctrl-bcm2711", "pinctrl-bcm2835", "raspberrypi,rp1-gpio"];

/// The chip with the header's lines: that of a Raspberry Pi, else the first there is.
///
/// # Errors
/// There is no chip that we may open.
pub fn chip() -> io::Result<PathBuf> {
    let mut chips = gpiocdev::chip::chips().map_err(io::Error::other)?;
    // gpiochip2 before gpiochip10.
    chips.sort_by(|a, b| gpiocdev::chip::path_compare(a, b));
    let label = |path: &PathBuf| {
        let info = gpiocdev::Chip::from_path(path).and_then(|c| c.info());
        info.map(|i| i.label).unwrap_or_default()
    };
    let header = chips.iter().find(|path| HEADERS.contains(&label(path).as_str()));
    header.or(chips.first()).cloned().ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, "no /dev/gpiochip* that may be opened: is the user in the group gpio?")
    })
}

/// An output, until it is dropped.
pub struct Line(Request);

impl Line {
    /// Takes the line `pin` of `chip` and drives it low, or high.
    ///
    /// # Errors
    /// There is no such line, it is taken, or we may not.
    pub fn output(chip: &Path, pin: u8, high: bool) -> io::Result<Self> {
        let value = if high { Value::Active } else { Value::Inactive };
        let request = Request::builder()
            .on_chip(chip)
            .with_consumer("jukebox")
            .with_line(pin.into())
            .as_output(value)
            .request()
            .map_err(|e| io::Error::other(format!("{} line {pin}: {e}", chip.display())))?;
        Ok(Self(request))
    }
}

/// A line does not take its value.
#[derive(Debug, thiserror::Error)]
#[error("a GPIO line does not take its value: {0}")]
pub struct LineError(pub gpiocdev::Error);

impl Error for LineError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

impl ErrorType for Line {
    type Error = LineError;
}

impl OutputPin for Line {
    fn set_low(&mut self) -> Result<(), LineError> {
        self.0.set_lone_value(Value::Inactive).map_err(LineError)
    }

    fn set_high(&mut self) -> Result<(), LineError> {
        self.0.set_lone_value(Value::Active).map_err(LineError)
    }
}
