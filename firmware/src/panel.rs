//! The panel as it is configured, covers for it, and what it says when no player runs.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use jukebox_board::panel::{COVER_SIDE, Cover, Covers, Look, Panel, PanelHandle, Png, Terminal, Wired};
use jukebox_board::profile::{Profile, Screen, Wiring};
use jukebox_core::library::Digest;
use jukebox_core::view::{Icon, Text, View};

use crate::config::{self, Board, Config, ConfigError};
use crate::fetch::{Fetcher, Want};
use crate::store::Objects;

/// A panel that runs, and whether it shows covers.
pub struct Running {
    /// The panel.
    pub handle: PanelHandle,
    /// For covers.
    pub covers: Option<Covers>,
}

/// Starts the panel that is configured; none if there is none. `below`: lines under the terminal's picture.
///
/// # Errors
/// The terminal cannot be used, or no thread be started. A panel on wires that does not answer is no error: it is tried again.
pub fn start(board: &Board, profile: Option<&Profile>, below: Vec<String>) -> anyhow::Result<Option<Running>> {
    let panel = match &board.panel {
        config::Panel::Terminal => Panel::Terminal(Terminal::new(below)?),
        _ => match without_terminal(board, profile) {
            Some(panel) => panel,
            None => return Ok(None),
        },
    };
    let is_lcd = profile.is_some_and(|p| p.screen() == Screen::Lcd) && !matches!(panel, Panel::Terminal(_));
    let handle = PanelHandle::start(panel).context("the panel's thread does not start")?;
    let covers = is_lcd.then(|| handle.covers());
    Ok(Some(Running { handle, covers }))
}

fn without_terminal(board: &Board, profile: Option<&Profile>) -> Option<Panel> {
    match &board.panel {
        config::Panel::Board => {
            let wiring = profile?.panel.clone()?;
            Some(Panel::Wired(Wired::new(wiring, board.gpiochip.clone())))
        }
        config::Panel::Png(path) => {
            let screen = profile.map_or(Screen::Oled, Profile::screen);
            Some(Panel::Png(Png::new(path.clone(), screen)))
        }
        config::Panel::Terminal | config::Panel::None => None,
    }
}

/// Most bytes of a cover; the library's rule is 20 kB.
const COVER_BYTES: usize = 64 << 10;
/// Largest side of a cover, in pixels; the library's rule is 240.
const COVER_MOST: usize = 1024;
/// For each request for a cover.
const COVER_DEADLINE: Duration = Duration::from_secs(30);

/// Brings the cover `digest` from the store or the office, and makes it ready for the panel.
///
/// # Errors
/// One line: it does not come, or is no picture.
pub async fn cover(digest: Digest, objects: &Objects, fetcher: &Fetcher) -> Result<Cover, String> {
    let bytes = match objects.read_later(digest).await {
        Some(bytes) => bytes,
        None => fetcher.fetch(Want::whole(digest, COVER_DEADLINE)).await.map_err(|e| e.to_string())?.bytes,
    };
    // Some milliseconds of computing: not between the driver's turns.
    let picture = tokio::task::spawn_blocking(move || picture(&bytes)).await.map_err(|e| e.to_string())??;
    Ok(Cover { digest, pixels: picture })
}

/// A JPEG as [`COVER_SIDE`] squared pixels of RGB565, its middle on black.
fn picture(jpeg: &[u8]) -> Result<Vec<u16>, String> {
    use zune_jpeg::JpegDecoder;
    use zune_jpeg::zune_core::bytestream::ZCursor;
    use zune_jpeg::zune_core::colorspace::ColorSpace;
    use zune_jpeg::zune_core::options::DecoderOptions;
    if jpeg.len() > COVER_BYTES {
        return Err(format!("a cover of {} bytes is too large", jpeg.len()));
    }
    let options = DecoderOptions::default()
        .set_max_width(COVER_MOST)
        .set_max_height(COVER_MOST)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(jpeg), options);
    let rgb = decoder.decode().map_err(|e| format!("the cover is no JPEG that can be read: {e:?}"))?;
    let (width, height) = decoder.dimensions().ok_or("the cover has no size")?;
    if width == 0 || height == 0 || rgb.len() < width * height * 3 {
        return Err("the cover has no pixels".into());
    }
    let side = COVER_SIDE as usize;
    let longer = width.max(height);
    // Each pixel is the mean of those it covers; what lies beside the picture is black.
    let span = |n: usize, most: usize| {
        let (from, to) = (n * longer / side, ((n + 1) * longer).div_ceil(side));
        let margin = (longer - most) / 2;
        from.saturating_sub(margin).min(most)..to.saturating_sub(margin).min(most)
    };
    let mean = |x: usize, y: usize| {
        let (xs, ys) = (span(x, width), span(y, height));
        let count = (xs.len() * ys.len()).max(1);
        let mut sum = [0; 3];
        for at in ys.flat_map(|y| xs.clone().map(move |x| 3 * (y * width + x))) {
            for (sum, value) in sum.iter_mut().zip(&rgb[at..at + 3]) {
                *sum += usize::from(*value);
            }
        }
        let [r, g, b] = sum.map(|sum| (sum / count) as u16);
        (r >> 3) << 11 | (g >> 2) << 5 | b >> 3
    };
    Ok((0..side).flat_map(|y| (0..side).map(move |x| (x, y))).map(|(x, y)| mean(x, y)).collect())
}

/// What a player says before it ends as it was told to.
pub fn off(name: &str) -> View {
    page(Icon::Stop, ["Jukebox is off", name, "", "It was stopped: systemctl start jukebox"])
}

fn page(icon: Icon, [headline, title, artist, detail]: [&str; 4]) -> View {
    let [headline, title, artist, detail] = [headline, title, artist, detail].map(Text::new);
    View { icon, headline, title, artist, detail, ..View::default() }
}

/// What stands on the panel when there is no configuration, or a wrong one.
pub fn not_set_up(error: &ConfigError) -> View {
    match error {
        ConfigError::Missing(_) => page(Icon::Warning, ["Not set up", "No configuration", "", "Run: jukebox setup"]),
        ConfigError::Unreadable { path, why, .. } => {
            page(Icon::Warning, ["Not set up", "A file cannot be read", &path.display().to_string(), why])
        }
        ConfigError::Wrong(spot) => {
            let place = format!("line {} of {}", spot.line, spot.path.display());
            page(Icon::Warning, ["Configuration is wrong", &spot.what, &place, "Check: jukebox config check"])
        }
    }
}

fn failed(name: &str) -> View {
    let detail = "It starts again by itself. What happened: journalctl -u jukebox";
    page(Icon::Warning, ["The player has failed", name, "", detail])
}

/// `jukebox panel --last-words`, for systemd's ExecStopPost: says on the panel why no player runs. `result` and `status` are
/// systemd's `$SERVICE_RESULT` and `$EXIT_STATUS`.
pub fn last_words(path: &Path, result: &str, status: &str) -> ExitCode {
    let config = Config::load(path);
    let name = config.as_ref().map(|c| c.name.clone()).unwrap_or_default();
    let view = match &config {
        Err(error) => not_set_up(error),
        // The configuration is right by now, or what it names was not.
        Ok(_) if result == "success" || result.is_empty() => off(&name),
        Ok(_) if status == config::EXIT.to_string() => {
            page(Icon::Warning, ["Not set up", "A file cannot be used", "", "Check: jukebox config check"])
        }
        Ok(_) => failed(&name),
    };
    let board = config.map(|c| c.board).unwrap_or_else(|_| legible(path));
    match say(&board, &view) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("jukebox: the panel cannot show \"{}\": {fault}", view.headline.as_str());
            ExitCode::FAILURE
        }
    }
}

/// Shows `view` on the panel of a player that did not start for its configuration; what fails here is not the news.
pub fn say_not_set_up(path: &Path, error: &ConfigError) {
    if let Err(fault) = say(&legible(path), &not_set_up(error)) {
        tracing::debug!("the panel cannot tell it: {fault}");
    }
}

/// What is said of the board in a configuration that is wrong elsewhere.
pub(crate) fn legible(path: &Path) -> Board {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let board = text.parse::<toml::Table>().ok().and_then(|mut table| table.remove("board"));
    board.and_then(|board| board.try_into().ok()).unwrap_or_default()
}

fn say(board: &Board, view: &View) -> io::Result<()> {
    let profile = board.profile().ok().flatten();
    let panel = without_terminal(board, profile.as_ref());
    // Nobody says which board it is: an OLED at its usual place is asked.
    let guess = || {
        let bus = Path::new("/dev/i2c-1");
        let oled = Wiring::Ssd1306 { bus: bus.into(), address: 0x3c, rotation: Default::default() };
        (board.panel == config::Panel::Board && profile.is_none() && bus.exists())
            .then(|| Panel::Wired(Wired::new(oled, None)))
    };
    match panel.or_else(guess) {
        Some(mut panel) => panel.show(view, &Look::default()).map(|_| ()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_cover_is_an_error() {
        for wrong in [&b""[..], b"\xff\xd8\xff\xd9", b"GIF89a", &[0xff; 70_000]] {
            assert!(picture(wrong).is_err());
        }
    }

    #[test]
    fn last_words_are_on_the_panel_whatever_happened() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("jukebox.toml");
        let png = folder.path().join("panel.png");
        let mut seen = Vec::new();
        let good = "[office]\nsite = \"hq\"\nplayer = \"lobby\"\norigins = [\"/srv/music\"]\n";
        let board = format!("[board]\npanel = \"png:{}\"\n", png.display());
        for (text, result, status) in [
            (format!("{good}{board}"), "success", "0"),
            (format!("{good}{board}"), "watchdog", "ABRT"),
            (format!("{good}{board}"), "exit-code", "78"),
            (format!("{good}volume = 3\n{board}"), "exit-code", "78"),
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(last_words(&file, result, status), ExitCode::SUCCESS);
            seen.push(std::fs::read(&png).unwrap());
        }
        seen.dedup();
        assert_eq!(seen.len(), 4, "each says something of its own");
        std::fs::remove_file(&file).unwrap();
        assert!(matches!(Config::load(&file), Err(ConfigError::Missing(_))));
        assert_eq!(legible(&file).panel, config::Panel::Board);
    }
}
