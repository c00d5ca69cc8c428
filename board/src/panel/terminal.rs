//! A panel that is a terminal: the view as a card of text, 62 columns wide, drawn in place.
//!
//! It fits 80 by 24 with the keys and a few lines of the caller's under it. Only lines that changed are written. Where standard output is no
//! terminal, each change of the words is one line.

use std::io;

use jukebox_core::view::{Grade, Icon, View};

use super::draw::clock;
use super::font::{clean, columns, wrap};
use crate::tty;

/// Columns of a card, its frame included.
pub const WIDTH: usize = 62;
/// Columns for text: within frame and margins.
const INNER: usize = WIDTH - 6;

/// The view in the terminal, until this is dropped.
pub struct Terminal {
    screen: Option<tty::Screen>,
    /// Lines under the card.
    below: Vec<String>,
    colour: bool,
    /// What stands on the terminal, and its size when that was drawn.
    shown: Vec<String>,
    size: (usize, usize),
}

impl Terminal {
    /// Takes the terminal. `below` stands under the card: keys, a command to try. Long lines are left to the terminal to break,
    /// so that they can be copied.
    ///
    /// # Errors
    /// The terminal cannot be written.
    pub fn new(below: Vec<String>) -> io::Result<Self> {
        let screen = tty::Screen::take()?;
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Ok(Self { screen, below, colour, shown: Vec::new(), size: (0, 0) })
    }

    /// Shows `view`.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn show(&mut self, view: &View) -> io::Result<()> {
        if self.screen.is_none() {
            let line = summary(view);
            if self.shown.first() != Some(&line) {
                tty::write(format!("{line}\n").as_bytes())?;
                self.shown = vec![line];
            }
            return Ok(());
        }
        let mut out = String::new();
        let size = tty::size();
        if size != self.size {
            out.push_str("\x1b[2J");
            self.shown.clear();
            self.size = size;
        }
        let mut lines = vec![String::new()];
        lines.extend(card(view, self.colour).into_iter().map(|line| format!("  {line}")));
        lines.truncate(size.1);
        for (n, line) in lines.iter().enumerate() {
            if self.shown.get(n) != Some(line) {
                out.push_str(&format!("\x1b[{};1H{line}\x1b[K", n + 1));
            }
        }
        if self.shown.is_empty() {
            let mut row = lines.len() + 2;
            for line in self.below.iter().map(|line| format!("  {}", line.replace(char::is_control, ""))) {
                let rows = columns(&line).div_ceil(size.0.max(1)).max(1);
                if row + rows > size.1 + 1 {
                    break;
                }
                out.push_str(&format!("\x1b[{row};1H{line}"));
                row += rows;
            }
        }
        self.shown = lines;
        tty::write(out.as_bytes())
    }

    /// Whether the window has another size than when it was drawn.
    pub(super) fn resized(&self) -> bool {
        self.screen.is_some() && !self.shown.is_empty() && tty::size() != self.size
    }
}

/// `view` as lines of text, [`WIDTH`] columns each, with ANSI colours or without.
pub fn card(view: &View, colour: bool) -> Vec<String> {
    let [headline, title, artist, detail] =
        [&view.headline, &view.title, &view.artist, &view.detail].map(|text| clean(text.as_str()));
    let paint = Paint { colour };
    let mood = mood(view.icon);
    let mut lines = vec![format!("╭{}╮", "─".repeat(WIDTH - 2))];
    let headline = pad(&format!("  {}  {}", sign(view.icon), cut(&headline, INNER - 3)), WIDTH - 2);
    lines.push(format!("│{}│", paint.with(&format!("1;7;{mood}"), &headline)));
    let mut row = |style: &str, text: &str| lines.push(format!("│  {}  │", paint.with(style, &pad(text, INNER))));
    row("", "");
    if let Some(overlay) = view.overlay {
        let words = if overlay.muted { "Muted".to_owned() } else { format!("Volume {} %", overlay.percent) };
        row("", "");
        row("1", &words);
        let done = if overlay.muted { 0 } else { usize::from(overlay.percent) };
        row("", &bar(INNER, done, 100));
        row("", "");
    } else {
        let title = wrap_cut(&title, 2);
        for line in &title {
            row("1", line);
        }
        row("", &cut(&artist, INNER));
        for _ in title.len()..3 {
            row("", "");
        }
    }
    match view.progress {
        Some(progress) => {
            let (at, of) = (clock(progress.at_s), clock(progress.of_s));
            let width = INNER.saturating_sub(at.len() + of.len() + 2);
            row(mood, &format!("{at} {} {of}", bar(width, progress.at_s as usize, progress.of_s as usize)));
        }
        None => row("", ""),
    }
    let mut detail = wrap_cut(&detail, 2);
    detail.resize(2, String::new());
    for line in &detail {
        row("", line);
    }
    row("", "");
    if let Some(strip) = view.strip {
        let link = match strip.link {
            Grade::Down => "link: none",
            Grade::Poor => "link ▂··· poor",
            Grade::Fair => "link ▂▄▆· fair",
            Grade::Good => "link ▂▄▆█ good",
        };
        let bots = if strip.bots { "bots: here" } else { "bots: OFFLINE" };
        let volume = if strip.muted { "MUTED".to_owned() } else { format!("volume {}", strip.volume) };
        let parts = [link.to_owned(), bots.to_owned(), volume, format!("{} up next", strip.up_next)];
        let gap = (INNER - parts.iter().map(|part| columns(part)).sum::<usize>()) / 3;
        row("", &parts.join(&" ".repeat(gap)));
    } else {
        row("", "");
    }
    lines.push(format!("╰{}╯", "─".repeat(WIDTH - 2)));
    lines
}

/// `view` in one line.
pub fn summary(view: &View) -> String {
    let parts = [&view.headline, &view.title, &view.artist, &view.detail].map(|text| clean(text.as_str()));
    let parts: Vec<&str> = parts.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    parts.join(" · ")
}

struct Paint {
    colour: bool,
}

impl Paint {
    fn with(&self, style: &str, text: &str) -> String {
        if style.is_empty() || !self.colour { text.to_owned() } else { format!("\x1b[{style}m{text}\x1b[0m") }
    }
}

/// ANSI colour of a state.
fn mood(icon: Icon) -> &'static str {
    match icon {
        Icon::Play => "32",
        Icon::Note | Icon::Pause | Icon::Stop | Icon::Info => "36",
        Icon::Wait | Icon::Skip => "33",
        Icon::NoLink | Icon::NoSound | Icon::Warning => "31",
    }
}

/// The icon as a character of one column.
fn sign(icon: Icon) -> char {
    match icon {
        Icon::Note => '♪',
        Icon::Play => '►',
        Icon::Pause => '‖',
        Icon::Stop => '■',
        Icon::Wait => '…',
        Icon::Skip => '»',
        Icon::NoLink => '×',
        Icon::NoSound => '∅',
        Icon::Warning => '!',
        Icon::Info => 'i',
    }
}

/// A bar of `width` columns, half a column fine.
fn bar(width: usize, at: usize, of: usize) -> String {
    let halves = 2 * width * at.min(of) / of.max(1);
    let mut bar = "━".repeat(halves / 2);
    if halves % 2 == 1 {
        bar.push('╸');
    }
    bar + &"─".repeat(width - halves.div_ceil(2))
}

/// `text` filled up with spaces to `width` columns.
fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(columns(text))))
}

/// `text` in one line of at most `width` columns.
fn cut(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let first = wrap(text, width - 1, width - 1).first().copied().unwrap_or_default();
    format!("{first}…")
}

/// `text` in at most `rows` lines, cut where it does not fit.
fn wrap_cut(text: &str, rows: usize) -> Vec<String> {
    let lines = wrap(text, INNER, INNER);
    let mut shown: Vec<String> = lines.iter().take(rows).map(|line| (*line).to_owned()).collect();
    if let (true, Some(last)) = (lines.len() > rows, shown.last_mut()) {
        *last = cut(&format!("{last} {}", lines[rows]), INNER);
    }
    shown
}

#[cfg(test)]
mod tests {
    use jukebox_core::view::{Progress, Strip, Text};

    use super::*;

    #[test]
    fn every_line_of_a_card_is_equally_wide() {
        let long = "世界に一つだけの花 and quite a long title that goes on and on, until nobody can read it";
        for text in ["", "Fête", "Чайковский – Щелкунчик", long] {
            let text = Text::new(text);
            let strip = Some(Strip { volume: 100, up_next: 200, ..Strip::default() });
            let progress = Some(Progress { at_s: 61, of_s: 3600 });
            let (headline, title) = (text.clone(), text.clone());
            let view = View { headline, title, detail: text, strip, progress, ..View::default() };
            let lines = card(&view, false);
            assert_eq!(lines.len(), 13);
            for line in lines {
                assert_eq!(columns(&line), WIDTH, "{line}");
            }
        }
    }

    #[test]
    fn the_bar_is_as_long_as_the_time_passed() {
        assert_eq!(bar(4, 0, 8), "────");
        assert_eq!(bar(4, 3, 8), "━╸──");
        assert_eq!(bar(4, 9, 8), "━━━━");
        assert_eq!(bar(4, 0, 0), "────");
    }

    #[test]
    fn no_escape_sequence_of_a_title_reaches_the_terminal() {
        let view = View { title: Text::new("\x1b]0;owned\x07\u{9b}31m"), ..View::default() };
        assert!(card(&view, false).iter().all(|line| !line.contains(char::is_control)));
        assert!(!summary(&view).contains(char::is_control));
    }
}
