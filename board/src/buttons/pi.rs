//! The pins of a Raspberry Pi, by way of rppal: the one file that knows it.

use std::sync::{Arc, Mutex, PoisonError};

use jukebox_core::gesture::Edge;
use rppal::gpio::{Gpio, InputPin, Trigger};

use super::{ButtonError, Wiring};

/// Pins with a thread each, until this is dropped.
pub(super) struct Pi {
    _pins: Vec<InputPin>,
}

/// Whether this is a Raspberry Pi whose pins we may use.
pub(super) fn is_here() -> bool {
    Gpio::new().is_ok()
}

impl Pi {
    pub(super) fn start(wiring: Wiring, tell: impl Fn(Edge) + Send + Sync + 'static) -> Result<Self, ButtonError> {
        let refused = |pin: u8| move |e: rppal::gpio::Error| ButtonError::Refused(format!("GPIO {pin}: {e}"));
        let gpio = Gpio::new().map_err(|e| ButtonError::Refused(e.to_string()))?;
        let numbers: Vec<u8> = wiring.pins().collect();
        // Both contacts of an encoder share a state; an edge is told in the order in which it was taken.
        let shared = Arc::new(Mutex::new((wiring, tell)));
        let mut pins = Vec::with_capacity(numbers.len());
        for number in numbers {
            let mut pin = gpio.get(number).map_err(refused(number))?.into_input_pullup();
            let shared = Arc::clone(&shared);
            let seen = move |event: rppal::gpio::Event| {
                let low = match event.trigger {
                    Trigger::FallingEdge => true,
                    Trigger::RisingEdge => false,
                    Trigger::Both | Trigger::Disabled => return,
                };
                let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(edge) = shared.0.edge(number, low) {
                    (shared.1)(edge);
                }
            };
            pin.set_async_interrupt(Trigger::Both, None, seen).map_err(refused(number))?;
            pins.push(pin);
        }
        Ok(Self { _pins: pins })
    }
}
