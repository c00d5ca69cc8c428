//! A wrong place in the file, shown: file, line, column, the line itself with a caret, and what to write instead.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A wrong place in the file. Displays as
/// ```text
/// jukebox.toml:12:1: unknown key `volume_mx`: did you mean `volume_max`?
///    |
/// 12 | volume_mx = 90
///    | ^^^^^^^^^
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    /// The file.
    pub path: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong, and the fix.
    pub what: String,
    excerpt: String,
    width: usize,
}

impl Spot {
    /// The place of an error that toml or serde found.
    pub(super) fn of_toml(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        Self::at(path, text, error.span().unwrap_or(0..0), plain(error.message()))
    }

    /// The place of the key at `keys` (section, then key), or of the nearest section that is there.
    pub(super) fn of_key(path: &Path, text: &str, keys: &[&str], what: String) -> Self {
        let mut span = 0..0;
        if let Ok(table) = toml::de::DeTable::parse(text) {
            let mut table = table.get_ref();
            for key in keys {
                let Some((name, value)) = table.get_key_value(*key) else { break };
                span = match value.get_ref().as_table() {
                    Some(inner) => {
                        table = inner;
                        name.span()
                    }
                    None => value.span(),
                };
            }
        }
        Self::at(path, text, span, what)
    }

    fn at(path: &Path, text: &str, span: Range<usize>, what: String) -> Self {
        let start = (0..=span.start.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        let excerpt: String = text[line_start..].lines().next().unwrap_or_default().to_owned();
        let column = before[line_start..].chars().count();
        let end = span.end.clamp(start, line_start + excerpt.len().max(start - line_start));
        let width = text.get(start..end).map_or(1, |s| s.chars().count()).max(1);
        Self { path: path.into(), line: before.matches('\n').count() + 1, column: column + 1, what, excerpt, width }
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, column, what, excerpt, width } = self;
        let margin = line.to_string().len();
        // A tab stays a tab under the line, so that the caret stands where the eye expects it.
        let lead: String = excerpt.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        writeln!(f, "{}:{line}:{column}: {what}", path.display())?;
        writeln!(f, "{:margin$} |", "")?;
        writeln!(f, "{line} | {excerpt}")?;
        write!(f, "{:margin$} | {lead}{}", "", "^".repeat(*width))
    }
}

/// serde's message in the words of a configuration file, with the nearest key where one is unknown.
fn plain(message: &str) -> String {
    let message = message.trim();
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match quoted.as_slice() {
        [key, known @ ..] if message.starts_with("unknown field") => match nearest(key, known) {
            Some(near) => format!("unknown key `{key}`: did you mean `{near}`?"),
            None => format!("unknown key `{key}`: here may stand {}", known.join(", ")),
        },
        [key, ..] if message.starts_with("missing field") => format!("`{key}` is missing: it has no default"),
        _ => message.to_owned(),
    }
}

/// The key that was probably meant: at most a third of its letters wrong.
fn nearest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    let (distance, near) = known.iter().map(|k| (strsim::osa_distance(key, k), *k)).min()?;
    (distance * 3 <= near.len().max(3)).then_some(near)
}
