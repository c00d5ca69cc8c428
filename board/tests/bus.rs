//! What the panels' drivers send, taken by models of both controllers, is the picture that was drawn; and no more is sent than
//! what changed.
//!
//! The models follow the data sheets: SSD1306 (Solomon Systech, rev 1.1, sections 8.1.5, 9, 10) and ST7789V (Sitronix, v1.6,
//! sections 8.4, 9.1). What a driver sends that a model does not know ends the test.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use embedded_graphics::pixelcolor::{BinaryColor, Rgb565, raw::RawU16};
use embedded_graphics::prelude::*;
use embedded_hal::delay::DelayNs;
use embedded_hal::digital::{self, OutputPin};
use embedded_hal::i2c::{self, I2c};
use embedded_hal::spi::{self, SpiDevice};
use jukebox_board::panel::draw::{self, Style};
use jukebox_board::panel::frame::Frame;
use jukebox_board::panel::lcd::Lcd;
use jukebox_board::panel::oled::Oled;
use jukebox_board::panel::{COVER_SIDE, Cover, Look};
use jukebox_board::profile::Rotation;
use jukebox_core::library::Digest;
use jukebox_core::view::{Icon, Progress, Strip, Text, View};

fn playing(at_s: u32) -> View {
    View {
        icon: Icon::Play,
        headline: Text::new("Playing"),
        title: Text::new("上を向いて歩こう"),
        artist: Text::new("Sakamoto Kyū"),
        detail: Text::new("Next: Maple Leaf Rag"),
        progress: Some(Progress { at_s, of_s: 183 }),
        strip: Some(Strip { bots: true, volume: 35, up_next: 3, ..Strip::default() }),
        ..View::default()
    }
}

fn drawn<C: PixelColor>(view: &View, look: &Look, style: &Style<C>) -> Frame<C> {
    let mut frame = Frame::new(style.size, style.ground());
    let Ok(_) = draw::draw(view, look, style, &mut frame);
    frame
}

/// An SSD1306 at 0x3c: 8 pages of 128 columns.
struct Ssd1306 {
    ram: [[u8; 128]; 8],
    at: (usize, usize),
    columns: (usize, usize),
    pages: (usize, usize),
    on: bool,
    pump: bool,
    horizontal: bool,
    mirrored: (bool, bool),
    contrast: u8,
    bytes: usize,
    broken: bool,
}

impl Ssd1306 {
    fn new() -> Self {
        // Chance, as after power-on.
        let ram = std::array::from_fn(|p| std::array::from_fn(|x| (p * 37 + x * 101) as u8));
        Self {
            ram,
            at: (0, 0),
            columns: (0, 127),
            pages: (0, 7),
            on: false,
            pump: false,
            horizontal: false,
            mirrored: (false, false),
            contrast: 0x7f,
            bytes: 0,
            broken: false,
        }
    }

    fn command(&mut self, c: &[u8]) {
        match *c {
            [0x20, mode] => self.horizontal = mode == 0,
            [0x21, first, last] => {
                assert!(first <= last && last < 128);
                (self.columns, self.at.0) = ((first.into(), last.into()), first.into());
            }
            [0x22, first, last] => {
                assert!(first <= last && last < 8);
                (self.pages, self.at.1) = ((first.into(), last.into()), first.into());
            }
            [0x81, contrast] => self.contrast = contrast,
            [0x8d, pump] => self.pump = pump & 0x04 != 0,
            [0xa0 | 0xa1] => self.mirrored.0 = c[0] & 1 == 1,
            [0xc0 | 0xc8] => self.mirrored.1 = c[0] == 0xc8,
            [0xae | 0xaf] => self.on = c[0] == 0xaf,
            // Multiplex of 64 rows, no offset, start line 0, not inverted, not all on, no scrolling.
            [0xa8, 63] | [0xd3, 0] | [0x40] | [0xa6] | [0xa4] | [0x2e] => {}
            // Clock, precharge, pins (alternative, not remapped), deselect level.
            [0xd5, _] | [0xd9, _] | [0xda, 0x12] | [0xdb, _] => {}
            _ => panic!("an SSD1306 does not know {c:02x?}"),
        }
    }

    fn data(&mut self, byte: u8) {
        assert!(self.horizontal, "after a row the next one comes by itself only in horizontal mode");
        self.ram[self.at.1][self.at.0] = byte;
        self.at.0 += 1;
        if self.at.0 > self.columns.1 {
            self.at = (self.columns.0, if self.at.1 == self.pages.1 { self.pages.0 } else { self.at.1 + 1 });
        }
    }

    /// What a person sees who holds the panel as it is built: the modules are wired mirrored both ways.
    fn seen(&self) -> Vec<BinaryColor> {
        assert!(self.on && self.pump, "the panel is dark");
        let pixel = |x: usize, y: usize| {
            let x = if self.mirrored.0 { x } else { 127 - x };
            let y = if self.mirrored.1 { y } else { 63 - y };
            BinaryColor::from(self.ram[y / 8][x] >> (y % 8) & 1 == 1)
        };
        (0..64).flat_map(|y| (0..128).map(move |x| (x, y))).map(|(x, y)| pixel(x, y)).collect()
    }
}

#[derive(Clone)]
struct Bus(Rc<RefCell<Ssd1306>>);

impl i2c::ErrorType for Bus {
    type Error = i2c::ErrorKind;
}

impl I2c for Bus {
    fn transaction(&mut self, address: u8, operations: &mut [i2c::Operation<'_>]) -> Result<(), i2c::ErrorKind> {
        let mut panel = self.0.borrow_mut();
        if address != 0x3c || panel.broken {
            return Err(i2c::ErrorKind::NoAcknowledge(i2c::NoAcknowledgeSource::Address));
        }
        for operation in operations {
            let i2c::Operation::Write(bytes) = operation else { panic!("an SSD1306 is not read on I2C") };
            panel.bytes += bytes.len() + 1;
            match bytes.split_first().unwrap() {
                (0x00, command) => panel.command(command),
                (0x40, data) => data.iter().for_each(|byte| panel.data(*byte)),
                (control, _) => panic!("control byte {control:02x}"),
            }
        }
        Ok(())
    }
}

#[test]
fn the_oled_shows_what_was_drawn_and_gets_only_what_changed() {
    let bus = Bus(Rc::new(RefCell::new(Ssd1306::new())));
    let mut oled = Oled::start(bus.clone(), 0x3c, Rotation::None).unwrap();
    let sent = || std::mem::take(&mut bus.0.borrow_mut().bytes);
    let mut show = |view: &View, look: &Look| {
        oled.show(view, look).unwrap();
        let wanted = drawn(view, look, &draw::OLED);
        assert!(bus.0.borrow().seen() == wanted.pixels(), "not the picture of {view:?}");
    };
    let day = Look::default();
    sent();
    show(&playing(62), &day);
    let whole = sent();
    assert!((1024..1400).contains(&whole), "{whole} bytes for a whole picture");
    show(&playing(62), &day);
    assert_eq!(sent(), 0, "an unchanged picture costs nothing");
    show(&playing(63), &day);
    let second = sent();
    assert!((1..150).contains(&second), "{second} bytes for a second of playing");
    // Every step of the shift is the same picture elsewhere.
    for shift in 0..9 {
        show(&playing(64), &Look { shift, ..Look::default() });
    }
    sent();
    let before = bus.0.borrow().contrast;
    show(&playing(64), &Look { shift: 8, dim: true, ..Look::default() });
    assert!(sent() < 10 && bus.0.borrow().contrast < before, "night is a matter of current");
}

#[test]
fn an_oled_can_hang_upside_down() {
    let bus = Bus(Rc::new(RefCell::new(Ssd1306::new())));
    let mut oled = Oled::start(bus.clone(), 0x3c, Rotation::Half).unwrap();
    oled.show(&playing(62), &Look::default()).unwrap();
    let mut turned = bus.0.borrow().seen();
    turned.reverse();
    assert!(turned == drawn(&playing(62), &Look::default(), &draw::OLED).pixels());
}

#[test]
fn an_oled_that_is_not_there_is_an_error_and_no_hang() {
    let bus = Bus(Rc::new(RefCell::new(Ssd1306::new())));
    let error = Oled::start(bus.clone(), 0x3d, Rotation::None).map(|_| ()).unwrap_err().to_string();
    assert_eq!(error, "no SSD1306 answers at 0x3d of the I2C bus");
    let mut oled = Oled::start(bus.clone(), 0x3c, Rotation::None).unwrap();
    bus.0.borrow_mut().broken = true;
    assert!(oled.show(&playing(1), &Look::default()).is_err());
    // Mended, and started anew: all of it is sent again.
    *bus.0.borrow_mut() = Ssd1306::new();
    let mut oled = Oled::start(bus.clone(), 0x3c, Rotation::None).unwrap();
    oled.show(&playing(1), &Look::default()).unwrap();
    assert!(bus.0.borrow().seen() == drawn(&playing(1), &Look::default(), &draw::OLED).pixels());
}

/// An ST7789 with 240 columns and 320 rows, of which the glass shows the first 240.
struct St7789 {
    ram: Vec<u16>,
    is_data: bool,
    command: u8,
    args: Vec<u8>,
    columns: (usize, usize),
    rows: (usize, usize),
    at: (usize, usize),
    half: Option<u8>,
    madctl: u8,
    awake: bool,
    on: bool,
    inverted: bool,
    sixteen: bool,
    bytes: usize,
    longest: usize,
}

impl St7789 {
    fn new() -> Self {
        Self {
            ram: (0..240 * 320).map(|n| ((n * 2_654_435_761_usize) >> 7) as u16).collect(),
            is_data: false,
            command: 0,
            args: Vec::new(),
            columns: (0, 239),
            rows: (0, 319),
            at: (0, 0),
            half: None,
            madctl: 0,
            awake: false,
            on: false,
            inverted: false,
            sixteen: false,
            bytes: 0,
            longest: 0,
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        self.longest = self.longest.max(bytes.len());
        for &byte in bytes {
            if self.is_data { self.data(byte) } else { self.command(byte) }
        }
    }

    fn command(&mut self, command: u8) {
        (self.command, self.half) = (command, None);
        self.args.clear();
        match command {
            0x01 => *self = Self { ram: std::mem::take(&mut self.ram), ..Self::new() },
            0x11 => self.awake = true,
            0x20 | 0x21 => self.inverted = command == 0x21,
            0x28 | 0x29 => self.on = command == 0x29,
            0x2c => self.at = (self.columns.0, self.rows.0),
            0x13 | 0x2a | 0x2b | 0x36 | 0x3a => {}
            _ => panic!("an ST7789 does not know {command:#04x} here"),
        }
    }

    fn data(&mut self, byte: u8) {
        if self.command == 0x2c {
            match self.half.take() {
                None => self.half = Some(byte),
                Some(high) => self.pixel(u16::from_be_bytes([high, byte])),
            }
            return;
        }
        self.args.push(byte);
        let word = |n: usize, args: &[u8]| usize::from(u16::from_be_bytes([args[n], args[n + 1]]));
        match (self.command, self.args.len()) {
            (0x2a, 4) => self.columns = (word(0, &self.args), word(2, &self.args)),
            (0x2b, 4) => self.rows = (word(0, &self.args), word(2, &self.args)),
            (0x36, 1) => self.madctl = byte,
            (0x3a, 1) => self.sixteen = byte & 7 == 5,
            (0x2a | 0x2b, 1..4) => {}
            _ => panic!("no parameter of {:#04x}", self.command),
        }
    }

    fn pixel(&mut self, pixel: u16) {
        let (mut column, mut row) = self.at;
        // MV exchanges the counters, then MX and MY mirror (section 8.12).
        if self.madctl & 0x20 != 0 {
            (column, row) = (row, column);
        }
        if self.madctl & 0x40 != 0 {
            column = 239 - column;
        }
        if self.madctl & 0x80 != 0 {
            row = 319 - row;
        }
        self.ram[row * 240 + column] = pixel;
        self.at.0 += 1;
        if self.at.0 > self.columns.1 {
            self.at = (self.columns.0, if self.at.1 == self.rows.1 { self.rows.0 } else { self.at.1 + 1 });
        }
    }

    fn seen(&self) -> Vec<Rgb565> {
        assert!(
            self.awake && self.on && self.inverted && self.sixteen,
            "the panel shows nothing, or the wrong colours"
        );
        assert_eq!(self.madctl & 0x08, 0, "red and blue are exchanged");
        self.ram[..240 * 240].iter().map(|raw| RawU16::new(*raw).into()).collect()
    }
}

#[derive(Clone)]
struct Wires(Rc<RefCell<St7789>>);

impl spi::ErrorType for Wires {
    type Error = Infallible;
}

impl SpiDevice for Wires {
    fn transaction(&mut self, operations: &mut [spi::Operation<'_, u8>]) -> Result<(), Infallible> {
        for operation in operations {
            let spi::Operation::Write(bytes) = operation else { panic!("an ST7789 is only written to") };
            self.0.borrow_mut().write(bytes);
        }
        Ok(())
    }
}

impl digital::ErrorType for Wires {
    type Error = Infallible;
}

impl OutputPin for Wires {
    fn set_low(&mut self) -> Result<(), Infallible> {
        self.0.borrow_mut().is_data = false;
        Ok(())
    }
    fn set_high(&mut self) -> Result<(), Infallible> {
        self.0.borrow_mut().is_data = true;
        Ok(())
    }
}

struct NoDelay;

impl DelayNs for NoDelay {
    fn delay_ns(&mut self, _: u32) {}
}

#[test]
fn the_lcd_shows_what_was_drawn_and_gets_only_what_changed() {
    let wires = Wires(Rc::new(RefCell::new(St7789::new())));
    let mut lcd = Lcd::start(wires.clone(), wires.clone(), Rotation::None, &mut NoDelay).unwrap();
    let sent = || std::mem::take(&mut wires.0.borrow_mut().bytes);
    let mut show = |view: &View, look: &Look| {
        lcd.show(view, look).unwrap();
        let wanted = drawn(view, look, draw::lcd(look.dim));
        assert!(wires.0.borrow().seen() == wanted.pixels(), "not the picture of {view:?}");
        wanted
    };
    let day = Look::default();
    sent();
    show(&playing(62), &day);
    let whole = sent();
    assert!((115_200..116_500).contains(&whole), "{whole} bytes for a whole picture");
    show(&playing(62), &day);
    assert_eq!(sent(), 0, "an unchanged picture costs nothing");
    show(&playing(63), &day);
    let second = sent();
    assert!((1..6_000).contains(&second), "{second} bytes for a second of playing");

    let digest = Digest::of(b"cover");
    let pixels: Vec<u16> = (0..COVER_SIDE * COVER_SIDE).map(|n| (n * 7) as u16).collect();
    let cover = std::sync::Arc::new(Cover { digest, pixels });
    let view = View { cover: Some(digest), ..playing(64) };
    let look = Look { cover: Some(cover), ..Look::default() };
    let with = show(&view, &look);
    let bare = show(&view, &day);
    let other = show(&View { cover: Some(Digest::of(b"another")), ..playing(64) }, &look);
    assert!(with != bare && other == bare, "a cover stands where the view names it, and only then");
    let night = show(&view, &Look { dim: true, ..look });
    let light = |frame: &Frame<Rgb565>| frame.pixels().iter().map(|c| u64::from(c.g()).pow(2)).sum::<u64>();
    assert!(2 * light(&night) < light(&with), "night is dark");
    assert!(wires.0.borrow().longest <= 4096, "no more than spidev takes at once");
}

#[test]
fn an_lcd_can_hang_any_way_up() {
    let upright = drawn(&playing(62), &Look::default(), &draw::LCD);
    let at = |frame: &[Rgb565], x: usize, y: usize| frame[y * 240 + x];
    for (rotation, turned) in [
        (Rotation::Quarter, (|x, y| (239 - y, x)) as fn(usize, usize) -> (usize, usize)),
        (Rotation::Half, |x, y| (239 - x, 239 - y)),
        (Rotation::ThreeQuarters, |x, y| (y, 239 - x)),
    ] {
        let wires = Wires(Rc::new(RefCell::new(St7789::new())));
        let mut lcd = Lcd::start(wires.clone(), wires.clone(), rotation, &mut NoDelay).unwrap();
        lcd.show(&playing(62), &Look::default()).unwrap();
        let seen = wires.0.borrow().seen();
        for (x, y) in (0..240).flat_map(|y| (0..240).map(move |x| (x, y))) {
            let (tx, ty) = turned(x, y);
            assert_eq!(at(&seen, tx, ty), at(upright.pixels(), x, y), "{rotation:?} {x} {y}");
        }
    }
}
