//! A small one-bit picture: a glyph, an icon. It can be doubled and drawn.
//!
//! Doubling smooths the corners with Scale2x (Andrea Mazzoleni, 2001, <https://www.scale2x.it/algorithm>): a 12-pixel
//! glyph reads well at 24 pixels, and the font is stored once.

use embedded_graphics::prelude::*;
use embedded_graphics::primitives::Rectangle;

/// Most rows and columns of a picture: a 16-pixel glyph doubled twice.
const MOST: usize = 64;

/// A picture of at most 64 by 64 pixels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bitmap {
    width: u32,
    height: u32,
    /// One number a row; the rightmost pixel is bit 0.
    rows: [u64; MOST],
}

impl Bitmap {
    /// An empty picture. Larger than 64 by 64 is cut.
    pub fn new(width: u32, height: u32) -> Self {
        Self { width: width.min(MOST as u32), height: height.min(MOST as u32), rows: [0; MOST] }
    }

    /// A picture from its rows, the rightmost pixel in bit 0.
    pub fn from_rows(width: u32, rows: impl IntoIterator<Item = u64>) -> Self {
        let mut picture = Self::new(width, 0);
        for (slot, row) in picture.rows.iter_mut().zip(rows) {
            *slot = row;
            picture.height += 1;
        }
        picture
    }

    /// Width and height in pixels.
    pub fn size(&self) -> Size {
        Size::new(self.width, self.height)
    }

    /// Lays `other` over it, centred: an accent over its letter.
    pub fn overlay(&mut self, other: &Bitmap) {
        let shift = self.width.saturating_sub(other.width) / 2;
        for (row, more) in self.rows.iter_mut().zip(other.rows) {
            *row |= more << shift;
        }
    }

    /// Widens every stroke by one pixel to the right, within the cell, but closes no gap: an `m` stays an `m`.
    pub fn embolden(&mut self) {
        for row in &mut self.rows {
            *row |= *row >> 1 & !(*row << 1);
        }
    }

    /// Twice as wide and high, corners smoothed if asked for. What is over 32 pixels wide or high stays as it is.
    pub fn doubled(&self, smooth: bool) -> Self {
        if self.width as usize > MOST / 2 || self.height as usize > MOST / 2 {
            return self.clone();
        }
        let mask = (1u64 << self.width) - 1;
        let mut big = Self { width: 2 * self.width, height: 2 * self.height, rows: [0; MOST] };
        for y in 0..self.height as usize {
            let here = self.rows[y];
            let up = if y > 0 { self.rows[y - 1] } else { 0 };
            let down = if y + 1 < self.height as usize { self.rows[y + 1] } else { 0 };
            if !smooth {
                big.rows[2 * y] = spread(here) << 1 | spread(here);
                big.rows[2 * y + 1] = big.rows[2 * y];
                continue;
            }
            let (left, right) = (here >> 1, here << 1 & mask);
            // A corner takes the colour of its two neighbours where they agree and their opposites do not.
            let corner = |side: u64, end: u64, other_side: u64, other_end: u64| {
                let same = !(side ^ end) & (side ^ other_end) & (end ^ other_side);
                same & end | !same & here
            };
            big.rows[2 * y] = spread(corner(left, up, right, down)) << 1 | spread(corner(right, up, left, down));
            big.rows[2 * y + 1] = spread(corner(left, down, right, up)) << 1 | spread(corner(right, down, left, up));
        }
        big
    }

    /// Doubled so many times, corners smoothed.
    pub fn scaled(self, doublings: u8) -> Self {
        (0..doublings).fold(self, |picture, _| picture.doubled(true))
    }

    /// Draws it with its upper left corner at `at`, pixels off in `ground`.
    pub fn draw<D: DrawTarget>(
        &self,
        at: Point,
        ink: D::Color,
        ground: D::Color,
        target: &mut D,
    ) -> Result<(), D::Error> {
        let (width, rows) = (self.width, &self.rows[..self.height as usize]);
        let pixels = rows.iter().flat_map(move |row| (0..width).rev().map(move |x| row >> x & 1 == 1));
        let area = Rectangle::new(at, self.size());
        target.fill_contiguous(&area, pixels.map(|on| if on { ink } else { ground }))
    }
}

/// Moves bit n to bit 2n, for the lower 32 bits (Morton order).
fn spread(bits: u64) -> u64 {
    let mut b = bits & 0xffff_ffff;
    b = (b | b << 16) & 0x0000_ffff_0000_ffff;
    b = (b | b << 8) & 0x00ff_00ff_00ff_00ff;
    b = (b | b << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    b = (b | b << 2) & 0x3333_3333_3333_3333;
    (b | b << 1) & 0x5555_5555_5555_5555
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubling_rounds_corners_and_steps() {
        let block = Bitmap::from_rows(2, [0b11, 0b11]).doubled(true);
        assert_eq!(block, Bitmap::from_rows(4, [0b0110, 0b1111, 0b1111, 0b0110]));
        // A diagonal of two pixels becomes a connected diagonal, not two blocks touching at a corner.
        let step = Bitmap::from_rows(4, [0, 0b0100, 0b0010, 0]).doubled(true);
        assert_eq!(step.rows[3], 0b0011_1000);
        assert_eq!(step.rows[4], 0b0001_1100);
    }

    #[test]
    fn spread_moves_every_bit() {
        for n in 0..32 {
            assert_eq!(spread(1 << n), 1 << (2 * n));
        }
    }
}
