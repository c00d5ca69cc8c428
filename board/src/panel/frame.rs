//! A picture in memory, and what changed since the last one.
//!
//! A panel keeps the frame it shows, draws the next one beside it (both: a [`Canvas`]), and sends only the *bands* (8 rows, as
//! the SSD1306 has them) and columns that differ.

use core::convert::Infallible;

use embedded_graphics::prelude::*;
use embedded_graphics::primitives::Rectangle;
use jukebox_core::view::View;

use super::draw::{self, Look, Style};

/// Rows of a band.
const BAND: usize = 8;

/// Pixels in memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame<C> {
    width: usize,
    pixels: Vec<C>,
}

impl<C: PixelColor> Frame<C> {
    /// A frame of one colour.
    pub fn new(size: Size, ground: C) -> Self {
        Self { width: size.width as usize, pixels: vec![ground; (size.width * size.height) as usize] }
    }

    /// The pixels, row after row.
    pub fn pixels(&self) -> &[C] {
        &self.pixels
    }

    /// The pixels of `area`, row after row; nothing where it lies outside.
    pub fn part(&self, area: Rectangle) -> impl Iterator<Item = C> + '_ {
        let area = area.intersection(&self.bounding_box());
        area.points().map(|p| self.pixels[p.y as usize * self.width + p.x as usize])
    }

    /// The parts that differ from `shown`, at most one a band. Frames of another size differ everywhere.
    pub fn changes<'a>(&'a self, shown: &'a Frame<C>) -> impl Iterator<Item = Rectangle> + 'a {
        let band = (BAND * self.width).max(1);
        let whole = self.width != shown.width || self.pixels.len() != shown.pixels.len();
        self.pixels.chunks(band).enumerate().filter_map(move |(n, new)| {
            let rows = (new.len() / self.width) as u32;
            let at = |x: usize, width: usize| {
                Rectangle::new(Point::new(x as i32, (n * BAND) as i32), Size::new(width as u32, rows))
            };
            if whole {
                return Some(at(0, self.width));
            }
            let old = &shown.pixels[n * band..n * band + new.len()];
            if new == old {
                return None;
            }
            let mut span: Option<(usize, usize)> = None;
            for (new, old) in new.chunks(self.width).zip(old.chunks(self.width)) {
                let differs = |x: &usize| new[*x] != old[*x];
                let (first, last) = ((0..self.width).find(differs), (0..self.width).rev().find(differs));
                if let (Some(first), Some(last)) = (first, last) {
                    span = Some(span.map_or((first, last), |(a, b)| (a.min(first), b.max(last))));
                }
            }
            span.map(|(first, last)| at(first, last - first + 1))
        })
    }
}

/// The frame that a panel shows, and the one being drawn.
pub struct Canvas<C> {
    shown: Option<Frame<C>>,
    next: Frame<C>,
}

impl<C: PixelColor> Canvas<C> {
    /// Nothing is shown yet.
    pub fn new(style: &Style<C>) -> Self {
        Self { shown: None, next: Frame::new(style.size, style.ground()) }
    }

    /// Draws the next frame; tells whether the next beat looks different.
    pub fn draw(&mut self, view: &View, look: &Look, style: &Style<C>) -> bool {
        let Ok(paged) = draw::draw(view, look, style, &mut self.next);
        paged
    }

    /// The frame drawn last.
    pub fn next(&self) -> &Frame<C> {
        &self.next
    }

    /// What the panel does not show yet of the frame drawn last.
    pub fn changes(&self) -> Vec<Rectangle> {
        match &self.shown {
            Some(shown) => self.next.changes(shown).collect(),
            None => self.next.changes(&Frame { width: 0, pixels: Vec::new() }).collect(),
        }
    }

    /// Whether the panel does not show yet what was drawn last.
    pub fn is_changed(&self) -> bool {
        self.shown.as_ref() != Some(&self.next)
    }

    /// The panel shows the frame drawn last.
    pub fn accept(&mut self) {
        let old = self.shown.take().unwrap_or_else(|| self.next.clone());
        self.shown = Some(core::mem::replace(&mut self.next, old));
    }
}

impl<C> OriginDimensions for Frame<C> {
    fn size(&self) -> Size {
        Size::new(self.width as u32, self.pixels.len().checked_div(self.width).unwrap_or(0) as u32)
    }
}

impl<C: PixelColor> DrawTarget for Frame<C> {
    type Color = C;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<C>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        let area = self.bounding_box();
        for Pixel(at, colour) in pixels {
            if area.contains(at) {
                self.pixels[at.y as usize * self.width + at.x as usize] = colour;
            }
        }
        Ok(())
    }

    fn fill_contiguous<I: IntoIterator<Item = C>>(&mut self, area: &Rectangle, colours: I) -> Result<(), Infallible> {
        if area.intersection(&self.bounding_box()) != *area {
            return self.draw_iter(area.points().zip(colours).map(|(at, colour)| Pixel(at, colour)));
        }
        let mut colours = colours.into_iter();
        for y in area.rows() {
            let start = y as usize * self.width + area.top_left.x as usize;
            let row = &mut self.pixels[start..start + area.size.width as usize];
            row.iter_mut().zip(&mut colours).for_each(|(pixel, colour)| *pixel = colour);
        }
        Ok(())
    }

    fn fill_solid(&mut self, area: &Rectangle, colour: C) -> Result<(), Infallible> {
        let area = area.intersection(&self.bounding_box());
        for y in area.rows() {
            let start = y as usize * self.width + area.top_left.x as usize;
            self.pixels[start..start + area.size.width as usize].fill(colour);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use embedded_graphics::pixelcolor::BinaryColor::{self, Off, On};

    use super::*;

    #[test]
    fn only_the_columns_and_bands_that_changed_are_sent() {
        let shown = Frame::new(Size::new(128, 64), Off);
        let mut next = shown.clone();
        assert_eq!(next.changes(&shown).count(), 0);
        let _ = next.fill_solid(&Rectangle::new(Point::new(10, 6), Size::new(20, 4)), On);
        let changed: Vec<_> = next.changes(&shown).collect();
        let band = |y| Rectangle::new(Point::new(10, y), Size::new(20, 8));
        assert_eq!(changed, [band(0), band(8)]);
    }

    #[test]
    fn drawing_outside_is_cut() {
        let mut frame = Frame::new(Size::new(4, 4), Off);
        let _ = frame.fill_solid(&Rectangle::new(Point::new(-2, 3), Size::new(4, 9)), On);
        let _ = frame.draw_iter([Pixel(Point::new(9, 0), On)]);
        let cut = Rectangle::new(Point::new(3, -1), Size::new(2, 2));
        let _ = frame.fill_contiguous(&cut, [Off, Off, On, On]);
        let whole = Rectangle::new(Point::new(1, 0), Size::new(2, 2));
        let _ = frame.fill_contiguous(&whole, [On, Off, Off, On]);
        let on: Vec<usize> = (0..16).filter(|n| frame.pixels()[*n] == BinaryColor::On).collect();
        assert_eq!(on, [1, 3, 6, 12, 13]);
    }
}
