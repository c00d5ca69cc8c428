//! Draws a [`View`], in two sizes, on anything that takes pixels.
//!
//! One layout serves both panels. From the top: icon and headline, title, artist; from the bottom: the strip, the line
//! of detail, the progress. Every part first gets one line; what room is left goes to the headline, the title, the detail and
//! the artist, in this order. Text that still does not fit is shown page by page, one page a *beat* of four seconds; where even
//! one line each is too much, artist and detail take turns. On the OLED the strip stands beside the headline, and what finds no
//! room there is left out, the volume first.
//!
//! State is told by picture and word; colour only repeats it. Every minute all of it moves by a pixel, so that nothing burns in.
//! On the LCD the cover stands to the left of title and artist.

use std::sync::Arc;

use embedded_graphics::pixelcolor::raw::RawU16;
use embedded_graphics::pixelcolor::{BinaryColor, Rgb565};
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::Rectangle;
use jukebox_core::library::Digest;
use jukebox_core::view::{Grade, Icon, Progress, Strip, View, VolumeOverlay};

use super::bitmap::Bitmap;
use super::font::{self, Pen};
use super::icons;

/// A side of the cover, in pixels.
pub const COVER_SIDE: u32 = 96;

/// A cover, ready to be shown: [`COVER_SIDE`] by [`COVER_SIDE`] pixels.
#[derive(Clone, PartialEq, Eq)]
pub struct Cover {
    /// Of which object: the view names it.
    pub digest: Digest,
    /// RGB565, row after row.
    pub pixels: Vec<u16>,
}

impl std::fmt::Debug for Cover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cover({})", self.digest)
    }
}

/// How a view is shown just now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Which page of what does not fit.
    pub beat: u32,
    /// How often all was moved by a pixel.
    pub shift: u32,
    /// Whether it is night.
    pub dim: bool,
    /// The cover, once it is here.
    pub cover: Option<Arc<Cover>>,
}

impl Look {
    /// Where everything stands: within two columns and one row, so that the small panel loses its top row at most.
    fn offset(&self) -> Point {
        let x = [0, 1, 2, 1][self.shift as usize % 4];
        Point::new(x, -i32::from(self.shift / 4 % 2 == 1))
    }
}

/// Colours and sizes of a kind of panel.
#[derive(Clone, Copy, Debug)]
pub struct Style<C> {
    /// Width and height in pixels.
    pub size: Size,
    /// How often fonts and icons are doubled.
    doublings: u8,
    /// Columns at the right that are free for moving.
    slack: i32,
    /// Free pixels at the edges and around the headline's band.
    margin: i32,
    /// Whether the headline stands on a band of its mood's colour.
    band: bool,
    ground: C,
    /// Title and other things to be read from afar.
    text: C,
    /// Artist, detail, strip.
    quiet: C,
    /// Empty part of bars, lines.
    faint: C,
    playing: C,
    calm: C,
    attention: C,
    trouble: C,
    /// A pixel of the cover (RGB565) in its colour; none: no cover.
    cover: Option<Shade<C>>,
}

impl<C: Copy> Style<C> {
    /// Colour of an empty panel.
    pub fn ground(&self) -> C {
        self.ground
    }

    /// Columns that are drawn on.
    fn width(&self) -> i32 {
        self.size.width as i32 - self.slack
    }
}

/// SSD1306 and its kin: 128 by 64, one bit.
pub const OLED: Style<BinaryColor> = Style {
    size: Size::new(128, 64),
    doublings: 0,
    slack: 2,
    margin: 0,
    band: false,
    ground: BinaryColor::Off,
    text: BinaryColor::On,
    quiet: BinaryColor::On,
    faint: BinaryColor::Off,
    playing: BinaryColor::On,
    calm: BinaryColor::On,
    attention: BinaryColor::On,
    trouble: BinaryColor::On,
    cover: None,
};

/// ST7789 and its kin: 240 by 240, 16 bit.
pub const LCD: Style<Rgb565> = Style {
    size: Size::new(240, 240),
    doublings: 1,
    slack: 0,
    margin: 5,
    band: true,
    ground: rgb(0x0e, 0x12, 0x18),
    text: rgb(0xff, 0xff, 0xff),
    quiet: rgb(0xb8, 0xc4, 0xd0),
    faint: rgb(0x40, 0x4c, 0x58),
    playing: rgb(0x50, 0xd8, 0x90),
    calm: rgb(0x78, 0xb8, 0xf0),
    attention: rgb(0xf8, 0xc0, 0x40),
    trouble: rgb(0xff, 0x80, 0x68),
    cover: Some(|pixel| Rgb565::from(RawU16::new(pixel))),
};

/// The same at night: a quarter of the light, and still readable.
pub const LCD_NIGHT: Style<Rgb565> = Style {
    ground: rgb(0, 0, 0),
    text: rgb(0x88, 0x88, 0x88),
    quiet: rgb(0x80, 0x80, 0x80),
    faint: rgb(0x20, 0x24, 0x28),
    playing: rgb(0x30, 0x88, 0x58),
    calm: rgb(0x50, 0x80, 0xa8),
    attention: rgb(0xa8, 0x80, 0x28),
    trouble: rgb(0xb8, 0x60, 0x50),
    // Half of each colour's bits: a quarter of the light.
    cover: Some(|pixel| Rgb565::from(RawU16::new(pixel >> 1 & 0x7bef))),
    ..LCD
};

/// The LCD's style by day, or at night.
pub fn lcd(dim: bool) -> &'static Style<Rgb565> {
    if dim { &LCD_NIGHT } else { &LCD }
}

const fn rgb(r: u8, g: u8, b: u8) -> Rgb565 {
    Rgb565::new(r >> 3, g >> 2, b >> 3)
}

/// Draws `view` on `target`. Returns whether a part of it is shown page by page, so that the next beat looks different.
pub fn draw<D: DrawTarget>(
    view: &View,
    look: &Look,
    style: &Style<D::Color>,
    target: &mut D,
) -> Result<bool, D::Error> {
    target.clear(style.ground)?;
    let cover = look.cover.as_deref().filter(|c| view.cover == Some(c.digest) && c.pixels.len() == COVER_PIXELS);
    let cover = cover.filter(|_| view.overlay.is_none()).zip(style.cover);
    let target = &mut target.translated(look.offset());
    Page { style, beat: look.beat, paged: false, indent: 0, cover, target }.draw(view)
}

const COVER_PIXELS: usize = (COVER_SIDE * COVER_SIDE) as usize;

/// A cover's pixel (RGB 565) as the panel shows it.
type Shade<C> = fn(u16) -> C;

/// A page being drawn.
struct Page<'a, D: DrawTarget> {
    style: &'a Style<D::Color>,
    beat: u32,
    paged: bool,
    /// Columns at the left that the cover takes from title and artist.
    indent: i32,
    cover: Option<(&'a Cover, Shade<D::Color>)>,
    target: &'a mut D,
}

/// Lines of one part, and the pen to write them with.
struct Block<C> {
    pen: Pen<C>,
    lines: Vec<String>,
}

impl<C: PixelColor> Block<C> {
    fn height(&self) -> i32 {
        self.lines.len() as i32 * self.pen.line_height()
    }
}

impl<D: DrawTarget> Page<'_, D> {
    fn draw(mut self, view: &View) -> Result<bool, D::Error> {
        let height = self.style.size.height as i32;
        let [title, artist, detail] = [&view.title, &view.artist, &view.detail].map(|t| font::clean(t.as_str()));
        let top = self.headline(view)?;
        if let Some(overlay) = view.overlay {
            self.overlay(overlay, top)?;
            return Ok(self.paged);
        }
        let mut bottom = height - self.style.margin;
        if let (Some(strip), true) = (view.strip, self.style.band) {
            bottom = self.strip_row(strip)?;
        }
        let line = self.body(self.style.quiet).line_height();
        let room = bottom - top - if view.progress.is_some() { line } else { 0 };
        let foot = room - COVER_SIDE as i32 - 2 * self.style.margin;
        let (title, artist, detail, top) = match self.cover.filter(|_| foot >= line) {
            Some((cover, colour)) => {
                let at = Point::new(self.style.margin, top + self.style.margin);
                let area = Rectangle::new(at, Size::new_equal(COVER_SIDE));
                self.target.fill_contiguous(&area, cover.pixels.iter().map(|pixel| colour(*pixel)))?;
                self.indent = COVER_SIDE as i32 + self.style.margin;
                let [title, artist, _] = self.fit([&title, &artist, ""], COVER_SIDE as i32);
                let indent = std::mem::take(&mut self.indent);
                let detail = self.fit_more(self.body(self.style.quiet), &detail, self.beat, &mut (foot - line));
                self.indent = indent;
                (title, artist, detail, at.y)
            }
            None => {
                let [title, artist, detail] = self.fit([&title, &artist, &detail], room);
                (title, artist, detail, top)
            }
        };
        let indent = std::mem::take(&mut self.indent);
        bottom -= detail.height();
        self.write(&detail, bottom)?;
        if let Some(progress) = view.progress {
            bottom -= line;
            self.progress(progress, self.mood(view.icon), bottom)?;
        }
        self.indent = indent;
        if indent > 0 {
            bottom = top + COVER_SIDE as i32;
        }
        // What room remains is shared: a little above and below the title, the rest below the artist.
        let spare = (bottom - top - title.height() - artist.height()).max(0);
        let gap = (spare / 2).min(self.pixels(2));
        let top = top + ((spare - gap) / 3).min(self.pixels(6));
        self.write(&title, top)?;
        self.write(&artist, top + title.height() + gap)?;
        Ok(self.paged)
    }

    /// `n` pixels of the small panel.
    fn pixels(&self, n: i32) -> i32 {
        n << self.style.doublings
    }

    fn body(&self, ink: D::Color) -> Pen<D::Color> {
        Pen { face: &font::BODY, doublings: self.style.doublings, bold: false, ink, ground: self.style.ground }
    }

    fn title(&self) -> Pen<D::Color> {
        Pen { face: &font::TITLE, bold: true, ..self.body(self.style.text) }
    }

    fn mood(&self, icon: Icon) -> D::Color {
        match icon {
            Icon::Play => self.style.playing,
            Icon::Note | Icon::Pause | Icon::Stop | Icon::Info => self.style.calm,
            Icon::Wait | Icon::Skip => self.style.attention,
            Icon::NoLink | Icon::NoSound | Icon::Warning => self.style.trouble,
        }
    }

    /// Columns of `pen` between the margins.
    fn columns(&self, pen: &Pen<D::Color>) -> usize {
        ((self.style.width() - self.indent - 2 * self.style.margin) / pen.column()).max(1) as usize
    }

    /// `text` in at most `rows` lines; what does not fit is paged.
    fn block(&mut self, pen: Pen<D::Color>, text: &str, rows: usize, beat: u32) -> Block<D::Color> {
        let columns = self.columns(&pen);
        let (lines, paged) = page(text, columns, columns, rows, beat);
        self.paged |= paged;
        Block { pen, lines }
    }

    /// Gives title, artist and detail their lines within `room` pixels.
    fn fit(&mut self, [title, artist, detail]: [&str; 3], room: i32) -> [Block<D::Color>; 3] {
        let (big, quiet) = (self.title(), self.body(self.style.quiet));
        // One pixel more on 12 fills the letters.
        let body = Pen { face: quiet.face, bold: big.doublings > 0, ..big };
        let least = |text: &str, pen: &Pen<D::Color>| if text.is_empty() { 0 } else { pen.line_height() };
        let mut spare = room - least(title, &big) - least(artist, &body) - least(detail, &body);
        let (artist, detail, beat) = if spare < 0 && !artist.is_empty() && !detail.is_empty() {
            // They take turns on one line.
            spare += body.line_height();
            self.paged = true;
            let [artists, details] = [artist, detail].map(|text| page_count(text, self.columns(&quiet), 1));
            let turn = self.beat % (artists + details);
            if turn < artists { ("", artist, turn) } else { ("", detail, turn - artists) }
        } else {
            (artist, detail, self.beat)
        };
        let title = self.fit_title(big, body, title, &mut spare);
        let detail = self.fit_more(quiet, detail, beat, &mut spare);
        let artist = self.fit_more(quiet, artist, beat, &mut spare);
        [title, artist, detail]
    }

    /// The title as large as it can be shown whole; else as much of it as there is room for.
    fn fit_title(&mut self, big: Pen<D::Color>, body: Pen<D::Color>, text: &str, spare: &mut i32) -> Block<D::Color> {
        if text.is_empty() {
            return Block { pen: big, lines: Vec::new() };
        }
        let room = *spare + big.line_height();
        let most = (room / body.line_height()).clamp(1, 3) as usize;
        let choices = [(big, 1), (big, 2), (body, 1), (body, 2), (body, 3)];
        let fits = |pen: &Pen<D::Color>, rows: usize| {
            rows as i32 * pen.line_height() <= room && page_count(text, self.columns(pen), rows) == 1
        };
        let (pen, rows) = choices.into_iter().find(|(pen, rows)| fits(pen, *rows)).unwrap_or((body, most));
        let block = self.block(pen, text, rows, self.beat);
        *spare = room - block.height();
        block
    }

    /// One line, and as many more as `spare` pixels allow and the text needs.
    fn fit_more(&mut self, pen: Pen<D::Color>, text: &str, beat: u32, spare: &mut i32) -> Block<D::Color> {
        let rows = 1 + (*spare / pen.line_height()).clamp(0, 3) as usize;
        let block = self.block(pen, text, rows, beat);
        *spare -= (block.height() - pen.line_height()).max(0);
        block
    }

    fn write(&mut self, block: &Block<D::Color>, top: i32) -> Result<(), D::Error> {
        let mut at = Point::new(self.style.margin + self.indent, top);
        for line in &block.lines {
            block.pen.write(line, at, self.target)?;
            at.y += block.pen.line_height();
        }
        Ok(())
    }

    fn fill(&mut self, at: Point, width: i32, height: i32, colour: D::Color) -> Result<(), D::Error> {
        let size = Size::new(width.max(0) as u32, height.max(0) as u32);
        self.target.fill_solid(&Rectangle::new(at, size), colour)
    }

    /// Icon and headline, on the OLED with the strip beside it; returns where the rest may start.
    fn headline(&mut self, view: &View) -> Result<i32, D::Error> {
        let (style, mood) = (self.style, self.mood(view.icon));
        let inverse = style.band || mood_is_trouble(view.icon);
        let (ink, ground) = if inverse { (style.ground, mood) } else { (mood, style.ground) };
        let pen = Pen { ground, bold: style.band, ..self.body(ink) };
        let icon = icons::of(view.icon).scaled(style.doublings);
        let indent = icon.size().width as i32 + self.pixels(2);
        let rest = self.columns(&pen);
        let first = rest.saturating_sub((indent + pen.column() - 1) as usize / pen.column() as usize);
        let text = font::clean(view.headline.as_str());
        let (lines, paged) = page(&text, first, rest, if view.progress.is_some() { 2 } else { 3 }, self.beat);
        self.paged |= paged;
        let height = lines.len().max(1) as i32 * pen.line_height() + 2 * style.margin;
        if inverse {
            // To the edges, wherever everything has moved.
            let (beyond, width) = (2, style.size.width as i32);
            self.fill(Point::new(-beyond, -beyond), width + 2 * beyond, height + beyond, ground)?;
        }
        let mut at = Point::new(style.margin, style.margin);
        icon.draw(at, ink, ground, self.target)?;
        at.x += indent;
        let mut end = at;
        for line in &lines {
            end = pen.write(line, at, self.target)?;
            at = Point::new(style.margin, at.y + pen.line_height());
        }
        if let (Some(strip), false) = (view.strip, style.band) {
            self.strip_beside(strip, pen, end)?;
        }
        Ok(height)
    }

    /// Times and bar.
    fn progress(&mut self, progress: Progress, mood: D::Color, top: i32) -> Result<(), D::Error> {
        let (style, pen) = (self.style, self.body(self.style.quiet));
        let (at, of) = (progress.at_s.min(progress.of_s), progress.of_s);
        let (left, right) = (clock(progress.at_s), clock(of));
        let (start, end) = (style.margin, style.width() - style.margin);
        let from = pen.write(&left, Point::new(start, top), self.target)?.x + self.pixels(3);
        let to = end - pen.width(&right);
        pen.write(&right, Point::new(to, top), self.target)?;
        let done = u64::from((to - self.pixels(3) - from).max(0) as u32) * u64::from(at) / u64::from(of.max(1));
        let width = to - self.pixels(3) - from;
        self.bar(Point::new(from, top + self.pixels(3)), width, self.pixels(6), done as i32, mood)
    }

    /// A bar of which `done` pixels are full.
    fn bar(&mut self, at: Point, width: i32, height: i32, done: i32, ink: D::Color) -> Result<(), D::Error> {
        let style = self.style;
        let line = self.pixels(1);
        self.fill(at, width, height, style.quiet)?;
        let inner = Point::new(at.x + line, at.y + line);
        self.fill(inner, width - 2 * line, height - 2 * line, style.faint)?;
        self.fill(inner, (done - 2 * line).clamp(0, width - 2 * line), height - 2 * line, ink)
    }

    /// The strip as a row of its own at the bottom; returns its top.
    fn strip_row(&mut self, strip: Strip) -> Result<i32, D::Error> {
        let style = self.style;
        let pen = self.body(style.quiet);
        let top = style.size.height as i32 - style.margin / 2 - pen.line_height();
        let rule = top - self.pixels(2);
        self.fill(Point::new(-2, rule), style.width() + 4, self.pixels(1) / 2, style.faint)?;
        let items = strip_items(strip);
        let used: i32 = items.iter().map(|item| self.item_width(item)).sum();
        let gap = (style.width() - 2 * style.margin - used) / (items.len() as i32 - 1).max(1);
        let mut x = style.margin;
        for item in &items {
            let ink = if item.bad { style.attention } else { style.quiet };
            self.item(item, Pen { ink, ..pen }, Point::new(x, top))?;
            x += self.item_width(item) + gap;
        }
        Ok(rule - self.pixels(1))
    }

    /// As much of the strip as fits to the right of `end`, the most telling things first.
    fn strip_beside(&mut self, strip: Strip, pen: Pen<D::Color>, end: Point) -> Result<(), D::Error> {
        let mut items = strip_items(strip);
        let (gap, edge) = (self.pixels(2), self.style.width());
        let needed = |items: &[Item]| items.iter().map(|item| self.item_width(item) + gap).sum::<i32>() - gap;
        while !items.is_empty() && needed(&items) > edge - end.x - gap {
            let least = items.iter().enumerate().min_by_key(|(_, item)| (item.bad, item.weight)).map_or(0, |(n, _)| n);
            items.remove(least);
        }
        let mut x = edge - needed(&items);
        for item in &items {
            self.item(item, pen, Point::new(x, end.y))?;
            x += self.item_width(item) + gap;
        }
        Ok(())
    }

    fn item_width(&self, item: &Item) -> i32 {
        self.pixels(12) + self.body(self.style.quiet).width(&item.text)
    }

    fn item(&mut self, item: &Item, pen: Pen<D::Color>, at: Point) -> Result<(), D::Error> {
        let icon = item.icon.clone().scaled(self.style.doublings);
        icon.draw(at, pen.ink, pen.ground, self.target)?;
        let text = Point::new(at.x + icon.size().width as i32, at.y);
        pen.write(&item.text, text, self.target).map(|_| ())
    }

    /// The volume, large.
    fn overlay(&mut self, overlay: VolumeOverlay, top: i32) -> Result<(), D::Error> {
        let style = self.style;
        let ink = if overlay.muted { style.attention } else { style.text };
        let words = if overlay.muted { "Muted".to_owned() } else { format!("{} %", overlay.percent) };
        let pen = Pen { doublings: style.doublings + 1, ..self.title() };
        let pen = Pen { ink, ..pen };
        let icon = icons::speaker(overlay.muted).scaled(style.doublings + 1);
        let bar = self.pixels(10);
        let gap = self.pixels(4);
        let width = icon.size().width as i32 + gap + pen.width(&words);
        let height = pen.line_height() + gap + bar;
        let (x, y) = (((style.width() - width) / 2).max(0), top + (style.size.height as i32 - top - height) / 2);
        let icon_y = y + (pen.line_height() - icon.size().height as i32) / 2;
        icon.draw(Point::new(x, icon_y), ink, style.ground, self.target)?;
        pen.write(&words, Point::new(x + icon.size().width as i32 + gap, y), self.target)?;
        let (from, length) = (style.margin, style.width() - 2 * style.margin);
        let done = if overlay.muted { 0 } else { length * i32::from(overlay.percent.min(100)) / 100 };
        self.bar(Point::new(from, y + pen.line_height() + gap), length, bar, done, style.playing)
    }
}

/// A thing on the strip.
struct Item {
    icon: Bitmap,
    text: String,
    /// Whether it tells of trouble.
    bad: bool,
    /// What has least weight goes first when there is no room.
    weight: u8,
}

fn strip_items(strip: Strip) -> Vec<Item> {
    let item = |icon, text, bad, weight| Item { icon, text, bad, weight };
    vec![
        item(icons::link(strip.link), String::new(), strip.link <= Grade::Poor, 3),
        item(icons::bots(strip.bots), String::new(), !strip.bots, 2),
        item(icons::speaker(strip.muted), strip.volume.min(100).to_string(), strip.muted, 0),
        item(icons::list(), strip.up_next.to_string(), false, 1),
    ]
}

fn mood_is_trouble(icon: Icon) -> bool {
    matches!(icon, Icon::NoLink | Icon::NoSound | Icon::Warning)
}

/// The lines of `text` to show in this beat, and whether there are more. All but the last page end with an ellipsis.
fn page(text: &str, first: usize, rest: usize, rows: usize, beat: u32) -> (Vec<String>, bool) {
    let lines = font::wrap(text, first, rest);
    if lines.len() <= rows {
        return (lines.into_iter().map(str::to_owned).collect(), false);
    }
    // One column less, so that the ellipsis finds room.
    let lines = font::wrap(text, first - 1, rest - 1);
    let pages = lines.len().div_ceil(rows);
    let shown = beat as usize % pages;
    let here = &lines[shown * rows..lines.len().min((shown + 1) * rows)];
    let mut here: Vec<String> = here.iter().map(|line| (*line).to_owned()).collect();
    if let (Some(last), Some(next)) = (here.last_mut(), lines.get((shown + 1) * rows)) {
        // What is left of the last line shows the start of the next word, which the next page then shows whole.
        let room = if shown == 0 && rows == 1 { first } else { rest } - 1;
        let gap = if font::joined(text, last, next) { "" } else { " " };
        for c in gap.chars().chain(next.chars()) {
            if font::columns(last) + font::columns(c.encode_utf8(&mut [0; 4])) > room {
                break;
            }
            last.push(c);
        }
        last.truncate(last.trim_end().len());
        last.push('…');
    }
    (here, true)
}

/// Pages that [`page`] makes of `text`; 0 if it is empty.
fn page_count(text: &str, columns: usize, rows: usize) -> u32 {
    let lines = font::wrap(text, columns, columns).len();
    if lines <= rows {
        u32::from(lines > 0)
    } else {
        font::wrap(text, columns - 1, columns - 1).len().div_ceil(rows) as u32
    }
}

/// `1:02`, `61:02`: minutes and seconds.
pub(super) fn clock(seconds: u32) -> String {
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Contrast of two colours by WCAG 2.1, section 1.4.3.
    fn contrast(a: Rgb565, b: Rgb565) -> f64 {
        let linear = |v: u8, most: u8| {
            let v = f64::from(v) / f64::from(most);
            if v <= 0.03928 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
        };
        let luminance =
            |c: Rgb565| 0.2126 * linear(c.r(), 31) + 0.7152 * linear(c.g(), 63) + 0.0722 * linear(c.b(), 31);
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn everything_on_the_lcd_is_readable() {
        for s in [LCD, LCD_NIGHT] {
            for ink in [s.text, s.quiet, s.playing, s.calm, s.attention, s.trouble] {
                assert!(contrast(ink, s.ground) >= 4.5, "{ink:?}: {}", contrast(ink, s.ground));
            }
        }
        assert!(contrast(LCD.text, LCD.ground) > 3.0 * contrast(LCD_NIGHT.text, LCD_NIGHT.ground), "night is darker");
        let least = |style_doublings: u8| font::BODY.height() << style_doublings;
        assert!(least(OLED.doublings) >= 12 && least(LCD.doublings) >= 20);
    }

    #[test]
    fn long_text_is_shown_page_by_page_and_whole() {
        let text = "one two three four five six seven";
        let shown: Vec<String> = (0..page_count(text, 12, 1))
            .map(|beat| match page(text, 12, 12, 1, beat) {
                (mut lines, true) if lines.len() == 1 => lines.remove(0),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(shown, ["one two thr…", "three four…", "five six se…", "seven"]);
        assert_eq!(page("上を向いて歩こう", 8, 8, 1, 0).0, ["上を向…"]);
        assert_eq!(page("short", 12, 12, 1, 7), (vec!["short".to_owned()], false));
    }
}
