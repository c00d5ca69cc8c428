//! The two bitmap fonts, and how text becomes lines.
//!
//! A *face* is one size of the /efont/ fonts (see `board/fonts/README.md`). Its glyphs are half-width (a *column*) or
//! full-width (two columns), so that a line's width is counted before anything is drawn. The blobs lie in the program file:
//! only the pages whose glyphs were shown are in memory.
//!
//! Text is brought into NFC. A mark that stands alone is laid over the character before it. A missing glyph is a box. Control and
//! direction-override characters are left out. Each line is put into the order in which it is seen (Unicode Standard Annex 9);
//! nothing is shaped, so that Arabic letters stand apart.

use embedded_graphics::prelude::*;
use unicode_bidi::BidiInfo;
use unicode_normalization::UnicodeNormalization;

use super::bitmap::Bitmap;

/// One size of the font.
pub struct Face {
    data: &'static [u8],
    height: u32,
    halves: usize,
    fulls: usize,
}

/// 12 pixels high, 6 pixels a column: everything but titles.
pub static BODY: Face = Face::open(include_bytes!("../../fonts/b12.font"));
/// 16 pixels high, 8 pixels a column: titles.
pub static TITLE: Face = Face::open(include_bytes!("../../fonts/b16.font"));

/// Where the index of the half-width glyphs starts.
const INDEX: usize = 10;
/// Bytes of a table of 257 starts.
const PAGES: usize = 2 * 257;

impl Face {
    const fn open(data: &'static [u8]) -> Self {
        assert!(
            data[0] == b'J' && data[1] == b'B' && data[2] == b'F' && data[3] == b'1',
            "not a font of fonts/make.py"
        );
        let halves = u16::from_le_bytes([data[6], data[7]]) as usize;
        let fulls = u16::from_le_bytes([data[8], data[9]]) as usize;
        Self { data, height: data[4] as u32, halves, fulls }
    }

    /// Rows of a glyph.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Pixels of a column.
    pub fn column(&self) -> u32 {
        self.height / 2
    }

    /// The picture of `c`, or none if the font has none.
    fn picture(&self, c: char) -> Option<Bitmap> {
        let code = u16::try_from(u32::from(c)).ok()?;
        let pictures = INDEX + 2 * PAGES + self.halves + self.fulls;
        let size = |width: u32| (width * self.height).div_ceil(8) as usize;
        let (half, full) = (size(self.height / 2), size(self.height));
        if let Some(n) = self.place(INDEX, code) {
            return self.unpack(pictures + n * half, self.height / 2);
        }
        let n = self.place(INDEX + PAGES + self.halves, code)?;
        self.unpack(pictures + self.halves * half + n * full, self.height)
    }

    /// The number of `code` among the glyphs indexed at `index`.
    fn place(&self, index: usize, code: u16) -> Option<usize> {
        let page = index + 2 * usize::from(code >> 8);
        let starts = self.data.get(page..page + 4)?;
        let from = usize::from(u16::from_le_bytes([starts[0], starts[1]]));
        let to = usize::from(u16::from_le_bytes([starts[2], starts[3]]));
        let codes = self.data.get(index + PAGES + from..index + PAGES + to)?;
        codes.binary_search(&(code as u8)).ok().map(|n| from + n)
    }

    fn is_half(&self, c: char) -> bool {
        u16::try_from(u32::from(c)).is_ok_and(|code| self.place(INDEX, code).is_some())
    }

    fn is_full(&self, c: char) -> bool {
        u16::try_from(u32::from(c)).is_ok_and(|code| self.place(INDEX + PAGES + self.halves, code).is_some())
    }

    fn unpack(&self, at: usize, width: u32) -> Option<Bitmap> {
        let bytes = self.data.get(at..at + (width * self.height).div_ceil(8) as usize)?;
        let bit = |n: u32| u64::from(bytes[n as usize / 8] >> (7 - n % 8) & 1);
        let row = |y: u32| (0..width).fold(0, |row, x| row << 1 | bit(y * width + x));
        Some(Bitmap::from_rows(width, (0..self.height).map(row)))
    }

    /// The glyph of `c`; a box if there is none.
    fn glyph(&self, c: char) -> Bitmap {
        self.picture(c).unwrap_or_else(|| {
            let width = self.column() * columns_of(c).max(1) as u32;
            let full = (1 << (width - 2)) - 1;
            let (top, side) = (full & !1, 1 << (width - 3) | 2);
            let row = |y| if y == 1 || y == self.height - 2 { top } else { side };
            let inside = |y: u32| y > 0 && y < self.height - 1;
            Bitmap::from_rows(width, (0..self.height).map(|y| if inside(y) { row(y) } else { 0 }))
        })
    }
}

/// How text is drawn: a face, doubled so many times, in two colours.
#[derive(Clone, Copy)]
pub struct Pen<C> {
    /// The size.
    pub face: &'static Face,
    /// 0: as stored, 1: doubled, 2: doubled twice.
    pub doublings: u8,
    /// Strokes one pixel wider.
    pub bold: bool,
    /// Colour of the strokes.
    pub ink: C,
    /// Colour behind them.
    pub ground: C,
}

impl<C: PixelColor> Pen<C> {
    /// Pixels from one line to the next.
    pub fn line_height(&self) -> i32 {
        (self.face.height() << self.doublings) as i32
    }

    /// Pixels of a column.
    pub fn column(&self) -> i32 {
        (self.face.column() << self.doublings) as i32
    }

    /// Width of `text` in pixels.
    pub fn width(&self, text: &str) -> i32 {
        columns(text) as i32 * self.column()
    }

    /// Draws one line, its upper left corner at `at`; returns where the next glyph would stand.
    pub fn write<D: DrawTarget<Color = C>>(&self, text: &str, at: Point, target: &mut D) -> Result<Point, D::Error> {
        let mut at = at;
        let line = visual(text);
        let mut chars = line.iter().copied().peekable();
        while let Some(c) = chars.next() {
            let mut glyph = self.face.glyph(c);
            while let Some(mark) = chars.next_if(|&c| is_mark(c)) {
                if let Some(mark) = self.face.picture(mark) {
                    glyph.overlay(&mark);
                }
            }
            // The strokes of an ideograph of 12 pixels lie too close for rounded corners.
            let smooth = glyph.size().width < 12 || glyph.size().height > 12;
            let mut glyph = (0..self.doublings).fold(glyph, |glyph, _| glyph.doubled(smooth));
            if self.bold {
                glyph.embolden();
            }
            glyph.draw(at, self.ink, self.ground, target)?;
            at.x += glyph.size().width as i32;
        }
        Ok(at)
    }
}

/// `text` in NFC and without what must not be drawn: control, direction and invisible characters; white space becomes one space.
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.nfc() {
        match c {
            c if c.is_whitespace() => {
                if !out.is_empty() && !out.ends_with(' ') {
                    out.push(' ');
                }
            }
            c if c.is_control() => {}
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => {}
            '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}' => {}
            c => out.push(c),
        }
    }
    out.truncate(out.trim_end().len());
    out
}

/// Columns of `text`: half-width characters 1, full-width 2, marks 0.
pub fn columns(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

/// Breaks cleaned `text` into lines of at most `first`, then `rest` columns: at spaces, between full-width characters, and inside a
/// word only where the word is longer than a line.
pub fn wrap(text: &str, first: usize, rest: usize) -> Vec<&str> {
    let (first, rest) = (first.max(2), rest.max(2));
    let mut lines = Vec::new();
    let mut left = text.trim();
    while !left.is_empty() {
        let room = if lines.is_empty() { first } else { rest };
        let (line, next) = break_line(left, room);
        lines.push(line.trim_end());
        left = next.trim_start();
    }
    lines
}

/// Whether two lines that [`wrap`] made of `text`, the second after the first, had no space between them.
pub fn joined(text: &str, line: &str, next: &str) -> bool {
    // Both are parts of `text`, and `line` may be a copy: `next` tells what stood before it.
    let at = (next.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    !line.is_empty() && !text.get(..at).is_some_and(|before| before.ends_with(' '))
}

/// The first line of `text`, and what follows.
fn break_line(text: &str, room: usize) -> (&str, &str) {
    let (mut used, mut soft, mut before) = (0, 0, None);
    for (at, c) in text.char_indices() {
        let width = columns_of(c);
        let wide = |c: char| columns_of(c) == 2;
        // A line may end before a space, and on either side of a full-width character; never before a mark or closing punctuation.
        if c == ' ' || before.is_some_and(|b| (wide(b) || wide(c)) && width > 0 && !closes(c)) {
            soft = at;
        }
        if used + width > room && c != ' ' {
            return text.split_at(if soft > 0 { soft } else { at });
        }
        used += width;
        before = Some(c);
    }
    (text, "")
}

/// Whether `c` closes what stands before it, so that no line starts with it.
fn closes(c: char) -> bool {
    matches!(
        c,
        '、' | '。'
            | '」'
            | '』'
            | '）'
            | '】'
            | '〉'
            | '》'
            | '！'
            | '？'
            | '，'
            | '．'
            | '：'
            | '；'
            | 'ー'
            | '々'
    )
}

fn columns_of(c: char) -> usize {
    match c {
        c if is_mark(c) => 0,
        c if u32::from(c) < 0x900 => 1,
        c if TITLE.is_full(c) || BODY.is_full(c) => 2,
        c if TITLE.is_half(c) || BODY.is_half(c) => 1,
        // Not in the font: as wide as East Asian text and pictographs are, so that the box has their size.
        '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}' => 2,
        '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff60}' | '\u{1f000}'..='\u{1faff}' | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

/// Marks that stand over or under the character before them.
fn is_mark(c: char) -> bool {
    matches!(u32::from(c), 0x300..=0x36f | 0x483..=0x489 | 0x591..=0x5bd | 0x5bf | 0x5c1..=0x5c2 | 0x5c4..=0x5c5 | 0x5c7
        | 0x610..=0x61a | 0x64b..=0x65f | 0xe31 | 0xe34..=0xe3a | 0xe47..=0xe4e | 0x1ab0..=0x1aff | 0x1dc0..=0x1dff
        | 0x20d0..=0x20ff | 0x3099..=0x309a | 0xfe20..=0xfe2f)
}

/// A line in the order it is seen; marks stay behind their letter.
fn visual(line: &str) -> Vec<char> {
    // All scripts that run from right to left, and everything about direction, are beyond this.
    if line.chars().all(|c| u32::from(c) < 0x590) {
        return line.chars().collect();
    }
    let bidi = BidiInfo::new(line, None);
    let mut seen = Vec::with_capacity(line.len());
    for paragraph in &bidi.paragraphs {
        let (levels, runs) = bidi.visual_runs(paragraph, paragraph.range.clone());
        for run in runs {
            let text = &line[run.clone()];
            if levels[run.start].is_ltr() {
                seen.extend(text.chars());
                continue;
            }
            let letters: Vec<char> = text.chars().collect();
            // From the last letter to the first, each followed by its marks.
            let mut end = letters.len();
            while end > 0 {
                let start = letters[..end].iter().rposition(|c| !is_mark(*c)).unwrap_or(0);
                seen.push(mirrored(letters[start]));
                seen.extend(&letters[start + 1..end]);
                end = start;
            }
        }
    }
    seen
}

fn mirrored(c: char) -> char {
    /// Pairs that are seen the other way round (Unicode's BidiMirroring.txt), as far as titles have them.
    const PAIRS: &str = "()[]{}<>«»‹›≤≥「」『』（）【】〈〉《》";
    let Some(at) = PAIRS.chars().position(|p| p == c) else { return c };
    PAIRS.chars().nth(at ^ 1).unwrap_or(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_glyphs_of_every_script_in_both_faces() {
        for face in [&BODY, &TITLE] {
            for c in "aZ09éžßΑωςЯщịễ’“…–אのミ音樂가한€".chars() {
                assert!(face.picture(c).is_some(), "{c} at {}", face.height());
            }
            assert!(face.picture('\u{1f3b5}').is_none());
        }
        assert_eq!((columns("Fête"), columns("Βαγγέλης"), columns("音楽abc")), (4, 8, 7));
    }

    #[test]
    fn both_faces_agree_on_the_width_of_what_they_share() {
        for code in 0x20..=0xffff {
            let Some(c) = char::from_u32(code).filter(|c| !is_mark(*c) && !c.is_control()) else { continue };
            for face in [&BODY, &TITLE] {
                let wide = face.glyph(c).size().width;
                assert_eq!(wide, face.column() * columns_of(c) as u32, "U+{code:04X} at {}", face.height());
            }
        }
    }

    #[test]
    fn a_missing_glyph_is_a_box_of_its_width() {
        let size = BODY.glyph('\u{1f3b5}').size();
        assert_eq!((size.width, size.height), (12, 12));
        assert_ne!(BODY.glyph('\u{1f3b5}'), Bitmap::new(12, 12));
        assert_eq!(BODY.glyph('\u{0e01}').size().width, 6);
    }

    #[test]
    fn strips_controls_and_overrides() {
        assert_eq!(clean("a\u{202e}b\u{7}c\u{200b}\r\n\td\u{feff} "), "abc d");
        assert_eq!(clean("\u{1b}[31mred"), "[31mred");
        assert_eq!(clean("Cafe\u{301} \u{1112}\u{1161}\u{11ab}"), "Café 한");
    }

    #[test]
    fn wraps_at_spaces_and_between_full_width_characters() {
        assert_eq!(wrap("Link lost, 34 min on board", 13, 20), ["Link lost, 34", "min on board"]);
        assert_eq!(wrap("Donaudampfschiff", 10, 10), ["Donaudampf", "schiff"]);
        assert_eq!(wrap("世界に一つだけの花", 8, 8), ["世界に一", "つだけの", "花"]);
        assert_eq!(wrap("「さくら」", 8, 8), ["「さく", "ら」"]);
        assert_eq!(wrap("", 8, 8), [""; 0]);
    }

    #[test]
    fn a_decomposed_letter_takes_one_column_and_keeps_its_accent() {
        assert_eq!(columns("e\u{301}"), 1);
        assert!(BODY.picture('\u{301}').is_some());
    }

    #[test]
    fn hebrew_is_seen_from_right_to_left() {
        let seen = |s: &str| visual(s).into_iter().collect::<String>();
        assert_eq!(seen("שלום (12) עולם"), "םלוע (12) םולש");
        assert_eq!(seen("Ofra – עפרה x"), "Ofra – הרפע x");
        // Where the first letter is Hebrew, all runs from the right: a Latin word stands left of it.
        assert_eq!(seen("שיר Waterloo «א»"), "«א» Waterloo ריש");
        assert_eq!(seen("אב\u{5b8}ג"), "גב\u{5b8}א");
        assert_eq!(seen("سلام 12"), "12 مالس");
    }
}
