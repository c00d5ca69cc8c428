//! `jukebox setup`: asks who the player is, where the office is, which board and outputs it has, and writes the configuration.
//!
//! It begins with a file of `jukebox-office player add` (from `--from`, or `jukebox.toml` on the boot partition), else with
//! what is there already. Law: nothing is written before the last answer; then the file is checked as the player would, put
//! in place in one step, and what was there is kept beside it. Everything that is asked can be given on the command line.

mod chime;
mod place;

use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use jukebox_board::output;
use jukebox_board::profile::{self, Profile};
use toml_edit::{Array, DocumentMut, Item, Table, value};

use crate::config::{self, Config};

/// The file that a boot partition may hold.
const NAME: &str = "jukebox.toml";

/// What may be said in advance.
#[derive(clap::Args, Debug, Clone, Default)]
#[command(after_help = EXAMPLES)]
pub struct SetupArgs {
    /// The configuration file to write.
    #[arg(long, env = "JUKEBOX_CONFIG", default_value = config::PATH, value_name = "FILE")]
    pub config: PathBuf,
    /// A file of `jukebox-office player add` to begin with [default: jukebox.toml of the boot partition, else what is there].
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// The boot partition; its jukebox.toml is moved into place, and blanked there.
    #[arg(long, default_value = "/boot/firmware", value_name = "DIR")]
    pub boot: PathBuf,
    /// Address of the office's library, or its folder; may be given again.
    #[arg(long, value_name = "URL")]
    pub office: Vec<String>,
    /// PEM file with the office's CA.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The broker, mqtts://HOST:PORT.
    #[arg(long, value_name = "URL")]
    pub broker: Option<String>,
    /// File whose first line is the password at the broker.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Id of the site.
    #[arg(long, value_name = "ID")]
    pub site: Option<String>,
    /// Id of the player.
    #[arg(long, value_name = "ID")]
    pub player: Option<String>,
    /// What people call it.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Profile of the board: a name, a file, or `none`.
    #[arg(long, value_name = "PROFILE")]
    pub board: Option<String>,
    /// An output, best first; may be given again.
    #[arg(long, value_name = "PCM")]
    pub output: Vec<String>,
    /// Play a chime through each output.
    #[arg(long)]
    pub chime: bool,
    /// Ask nothing: what is not given stays as it is, or gets its default.
    #[arg(long, short)]
    pub yes: bool,
}

const EXAMPLES: &str = "Examples:
  sudo jukebox setup                                   asks
  sudo jukebox setup --from lobby.toml --yes           takes the office's file as it is
  sudo jukebox setup --yes --board pirate-audio --chime";

/// Sets the player up, asking at the terminal.
///
/// # Errors
/// What is missing or wrong, with what to do; then nothing was written.
pub fn setup(args: &SetupArgs) -> anyhow::Result<()> {
    let (input, output) = (std::io::stdin().lock(), std::io::stdout());
    Setup { args, input, output }.run()
}

struct Setup<'a, R, W> {
    args: &'a SetupArgs,
    input: R,
    output: W,
}

impl<R: BufRead, W: Write> Setup<'_, R, W> {
    fn run(&mut self) -> anyhow::Result<()> {
        let args = self.args;
        let boot = args.boot.join(NAME);
        let (mut base, mut doc) = self.begin(&boot)?;
        if let Some(file) = self.office(&mut doc)? {
            (doc, base) = (read(&file)?, file);
        }
        self.identity(&mut doc)?;
        self.broker(&mut doc)?;
        let profile = self.board(&mut doc)?;
        self.outputs(&mut doc, profile.as_ref())?;

        let text = doc.to_string();
        // The file as it will be: relative paths count from its folder.
        let config = Config::parse(&text, &args.config).map_err(|e| anyhow::anyhow!("{e}"))?;
        config::tls_config(&config, crate::clock::Clock::new(None)).map_err(|e| anyhow::anyhow!("{e}"))?;
        let kept = place::put(&args.config, &text)?;
        if base == boot {
            place::blank(&boot)
                .with_context(|| format!("{}: it holds a password, and is not blanked", boot.display()))?;
            self.say(&format!("Taken from {}, which is blank now.", boot.display()))?;
        }
        if let Some(kept) = kept {
            self.say(&format!("What was there is {} now.", kept.display()))?;
        }
        let (player, site) = (&config.office.player, &config.office.site);
        self.say(&format!("{}: written, for player {player} at site {site}.", args.config.display()))?;
        self.say("Next: sudo systemctl enable jukebox; sudo systemctl restart jukebox; jukebox doctor")
    }

    /// What it begins with, and where that lies.
    fn begin(&mut self, boot: &Path) -> anyhow::Result<(PathBuf, DocumentMut)> {
        let args = self.args;
        if let Some(from) = &args.from {
            return Ok((from.clone(), read(from)?));
        }
        if std::fs::metadata(boot).is_ok_and(|m| m.len() > 0) {
            return Ok((boot.to_owned(), read(boot)?));
        }
        match std::fs::read_to_string(&args.config) {
            Ok(text) => {
                let doc = text.parse().map_err(|e| anyhow::anyhow!("{}: {e}", args.config.display()));
                Ok((args.config.clone(), doc.context("move it away, or correct it")?))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok((args.config.clone(), DocumentMut::new())),
            Err(e) => Err(e).with_context(|| format!("{}: run it as root", args.config.display())),
        }
    }

    /// Where the music comes from; a file of the office's, if one was named instead.
    fn office(&mut self, doc: &mut DocumentMut) -> anyhow::Result<Option<PathBuf>> {
        let args = self.args;
        let known = strings(doc, "office", "origins");
        let origins = if !args.office.is_empty() {
            args.office.clone()
        } else if self.args.yes && !known.is_empty() {
            known.clone()
        } else {
            let question = "The office's address (https://...), or the file that `jukebox-office player add` wrote";
            let answer = self.ask(question, &known.join(" "), "--office or --from")?;
            if Path::new(&answer).is_file() {
                return Ok(Some(answer.into()));
            }
            answer.split_whitespace().map(str::to_owned).collect()
        };
        if origins != known {
            set(doc, "office", "origins", origins.iter().collect::<Array>());
        }
        let has_ca = ["ca", "ca_pem"].iter().any(|key| has(doc, "office", key));
        let tls = origins.iter().any(|o| o.starts_with("https://"));
        let ca = match &args.ca {
            Some(ca) => Some(ca.clone()),
            None if tls && !has_ca => {
                Some(self.ask("File with the office's CA certificate (PEM)", "", "--ca, or --from")?.into())
            }
            None => None,
        };
        if let Some(path) = ca {
            let pem = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            forget(doc, "office", "ca");
            set(doc, "office", "ca_pem", pem);
        }
        Ok(None)
    }

    fn identity(&mut self, doc: &mut DocumentMut) -> anyhow::Result<()> {
        let args = self.args;
        let site = string(doc, "office", "site");
        let site = self.given("Site", args.site.as_ref(), site.as_deref(), "hq", "--site")?;
        put_if_new(doc, "office", "site", &site);
        let player = string(doc, "office", "player");
        let player =
            self.given("Player's id (a-z, 0-9 and -)", args.player.as_ref(), player.as_deref(), "", "--player")?;
        put_if_new(doc, "office", "player", &player);
        let name = doc.get("name").and_then(Item::as_str).map(str::to_owned);
        let name = self.given("What people call it", args.name.as_ref(), name.as_deref(), &player, "--name")?;
        if name != player || doc.contains_key("name") {
            doc.insert("name", value(name));
        }
        Ok(())
    }

    fn broker(&mut self, doc: &mut DocumentMut) -> anyhow::Result<()> {
        let args = self.args;
        let known = string(doc, "mqtt", "broker");
        let broker = match (&args.broker, &known) {
            (Some(given), _) => given.clone(),
            (None, Some(known)) => known.clone(),
            (None, None) if args.yes => return Ok(()),
            (None, None) => self.ask_free("Broker for bots and phones (mqtts://HOST:8883; empty: none)", "")?,
        };
        if broker.is_empty() {
            return Ok(());
        }
        put_if_new(doc, "mqtt", "broker", &broker);
        if let Some(file) = &args.password_file {
            let file = std::path::absolute(file)?;
            forget(doc, "mqtt", "password");
            set(doc, "mqtt", "password_file", file.display().to_string());
        } else if !args.yes && !has(doc, "mqtt", "password") && !has(doc, "mqtt", "password_file") {
            let password = self.ask_free("Password there (shown as you type; empty: none)", "")?;
            if !password.is_empty() {
                set(doc, "mqtt", "password", password);
            }
        }
        Ok(())
    }

    fn board(&mut self, doc: &mut DocumentMut) -> anyhow::Result<Option<Profile>> {
        let known = string(doc, "board", "profile");
        let told = config::hat().and_then(|product| Profile::of_hat(&product)).map(|p| p.name);
        let board = match &self.args.board {
            Some(board) => board.clone(),
            None if self.args.yes => known.clone().unwrap_or_default(),
            None => {
                self.say("Boards:")?;
                for p in profile::all() {
                    self.say(&format!("  {:<18} {}", p.name, p.about))?;
                }
                let default = known.as_deref().or(told.as_deref()).unwrap_or("none");
                self.ask_free("Board (its name, a profile of your own, or none)", default)?
            }
        };
        match board.as_str() {
            // Nothing said: the EEPROM of the board may tell.
            "" => {}
            "none" => forget(doc, "board", "profile"),
            name => {
                Profile::named(name)?;
                put_if_new(doc, "board", "profile", name);
            }
        }
        let named = string(doc, "board", "profile").or(told);
        Ok(named.map(|name| Profile::named(&name)).transpose()?)
    }

    /// Lists the outputs, plays a chime through each, and notes those that were heard.
    fn outputs(&mut self, doc: &mut DocumentMut, profile: Option<&Profile>) -> anyhow::Result<()> {
        let args = self.args;
        let known = if args.output.is_empty() { strings(doc, "output", "outputs") } else { args.output.clone() };
        let mut heard = Vec::new();
        if args.chime || !args.yes {
            let mut names = known.clone();
            if args.output.is_empty() {
                names.extend(profile.into_iter().flat_map(|p| p.outputs.clone()));
                names.extend(output::names().into_iter().filter(|n| n.starts_with("hw:")));
            }
            let mut seen = BTreeSet::new();
            names.retain(|n| seen.insert(n.clone()));
            self.say(if names.is_empty() { "No sound device is there." } else { "Outputs:" })?;
            for name in &names {
                if !args.yes
                    && self.ask_free(&format!("  {name}: Enter plays a chime, n skips it"), "")?.starts_with('n')
                {
                    continue;
                }
                match chime::play(name) {
                    Ok(()) if args.yes => self.say(&format!("  {name}: played"))?,
                    Ok(()) if self.ask_free("  Did you hear it (y or n)", "n")?.starts_with('y') => {
                        heard.push(name.clone())
                    }
                    Ok(()) => {}
                    Err(e) => self.say(&format!("  {name}: {e:#}"))?,
                }
            }
        }
        let outputs = if heard.is_empty() { known } else { heard };
        if !outputs.is_empty() && outputs != strings(doc, "output", "outputs") {
            forget(doc, "output", "record");
            set(doc, "output", "outputs", outputs.iter().collect::<Array>());
        }
        Ok(())
    }

    /// What is given, or known and not to be asked for, or the answer.
    fn given(
        &mut self,
        what: &str,
        given: Option<&String>,
        known: Option<&str>,
        default: &str,
        flag: &str,
    ) -> anyhow::Result<String> {
        match (given, known) {
            (Some(given), _) => Ok(given.clone()),
            (None, Some(known)) if self.args.yes => Ok(known.to_owned()),
            (None, known) => self.ask(what, known.unwrap_or(default), flag),
        }
    }

    /// An answer that cannot be empty; with `--yes` the default, or an error that names the flag.
    fn ask(&mut self, what: &str, default: &str, flag: &str) -> anyhow::Result<String> {
        loop {
            let answer = if self.args.yes { default.to_owned() } else { self.ask_free(what, default)? };
            match answer.is_empty() {
                false => return Ok(answer),
                true if self.args.yes => bail!("{what} is missing: give {flag}"),
                true => {}
            }
        }
    }

    fn ask_free(&mut self, what: &str, default: &str) -> anyhow::Result<String> {
        let hint = if default.is_empty() { String::new() } else { format!(" [{default}]") };
        write!(self.output, "{what}{hint}: ")?;
        self.output.flush()?;
        let mut line = String::new();
        if self.input.read_line(&mut line)? == 0 {
            bail!("no answer; nothing was written (--yes asks nothing)");
        }
        let line = line.trim();
        Ok(if line.is_empty() { default.to_owned() } else { line.to_owned() })
    }

    fn say(&mut self, line: &str) -> anyhow::Result<()> {
        Ok(writeln!(self.output, "{line}")?)
    }
}

fn read(path: &Path) -> anyhow::Result<DocumentMut> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    text.parse().map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))
}

fn get<'d>(doc: &'d DocumentMut, section: &str, key: &str) -> Option<&'d Item> {
    doc.get(section)?.as_table_like()?.get(key)
}

fn has(doc: &DocumentMut, section: &str, key: &str) -> bool {
    get(doc, section, key).is_some()
}

fn string(doc: &DocumentMut, section: &str, key: &str) -> Option<String> {
    get(doc, section, key)?.as_str().map(str::to_owned)
}

fn strings(doc: &DocumentMut, section: &str, key: &str) -> Vec<String> {
    let array = get(doc, section, key).and_then(Item::as_array);
    array.into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

fn set(doc: &mut DocumentMut, section: &str, key: &str, to: impl Into<toml_edit::Value>) {
    let table = doc.entry(section).or_insert_with(|| Item::Table(Table::new()));
    if let Some(table) = table.as_table_like_mut() {
        table.insert(key, value(to));
    }
}

fn put_if_new(doc: &mut DocumentMut, section: &str, key: &str, to: &str) {
    if string(doc, section, key).as_deref() != Some(to) {
        set(doc, section, key, to);
    }
}

fn forget(doc: &mut DocumentMut, section: &str, key: &str) {
    if let Some(table) = doc.get_mut(section).and_then(Item::as_table_like_mut) {
        table.remove(key);
    }
}

#[cfg(test)]
mod tests;
