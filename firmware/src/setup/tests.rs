//! A player is set up: by flags, by answers, from the boot partition; and what is wrong leaves everything as it was.

use std::fs;
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt;

use super::*;

const FILE: &str = "# of the office\n[office]\nsite = \"hq\"\nplayer = \"lobby\"\norigins = [\"/srv/music\"]\n\n\
                    [mqtt]\nbroker = \"mqtt://office\"\npassword = \"secret\"\n";

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    fn args(&self) -> SetupArgs {
        SetupArgs { config: self.at("etc/jukebox.toml"), boot: self.at("boot"), yes: true, ..SetupArgs::default() }
    }
    /// All files but sound, by name.
    fn files(&self) -> Vec<String> {
        let mut names: Vec<_> = ["etc", "boot"]
            .iter()
            .filter_map(|d| fs::read_dir(self.at(d)).ok())
            .flatten()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn run(args: &SetupArgs, answers: &str) -> (anyhow::Result<()>, String) {
    let mut out = Vec::new();
    let done = Setup { args, input: Cursor::new(answers.as_bytes().to_vec()), output: &mut out }.run();
    (done, String::from_utf8(out).unwrap())
}

#[test]
fn flags_are_enough() {
    let place = Place::new();
    let s = |text: &str| Some(text.to_owned());
    let sound = place.at("chime.wav");
    let output = vec![format!("unpaced:{}", sound.display())];
    let args = SetupArgs {
        office: vec!["/srv/music".into()],
        site: s("hq"),
        player: s("lobby"),
        name: s("Lobby, 2nd floor"),
        board: s("sim-lcd"),
        output: output.clone(),
        chime: true,
        ..place.args()
    };
    let (done, said) = run(&args, "");
    done.unwrap();
    assert!(said.contains(": played") && said.contains("written, for player lobby at site hq"), "{said}");
    let config = Config::load(&args.config).unwrap();
    assert_eq!((config.name.as_str(), &config.output.outputs), ("Lobby, 2nd floor", &output));
    assert_eq!(config.board.profile.as_deref(), Some("sim-lcd"));
    assert_eq!(fs::metadata(&args.config).unwrap().permissions().mode() & 0o777, 0o600);
    // The chime was heard: 0.8 s of stereo in 16 bits, and not silence.
    let bytes = fs::read(&sound).unwrap();
    let samples: Vec<_> = bytes[44..].chunks_exact(2).map(|s| i16::from_le_bytes([s[0], s[1]])).collect();
    let peak = samples.iter().map(|s| s.unsigned_abs()).max();
    assert!(
        samples.len() >= 2 * 38_400 && peak.is_some_and(|p| (2_000..5_000).contains(&p)),
        "{} {peak:?}",
        samples.len()
    );
    // Again, with nothing new: nothing is kept, nothing changes.
    let text = fs::read(&args.config).unwrap();
    run(&SetupArgs { chime: false, ..args.clone() }, "").0.unwrap();
    assert_eq!((fs::read(&args.config).unwrap(), place.files()), (text, vec!["jukebox.toml".to_owned()]));
}

#[test]
fn what_is_missing_is_named_with_its_flag_and_nothing_is_written() {
    let place = Place::new();
    let error = |args: SetupArgs| run(&args, "").0.unwrap_err().to_string();
    assert!(error(place.args()).ends_with("give --office or --from"));
    let office = SetupArgs { office: vec!["/srv".into()], ..place.args() };
    assert!(error(office.clone()).ends_with("give --player"));
    let wrong = SetupArgs { player: Some("Lobby!".into()), ..office.clone() };
    assert!(error(wrong).contains("an id is 1 to 32"));
    let tls = SetupArgs { office: vec!["https://office/".into()], ..place.args() };
    assert!(error(tls).ends_with("give --ca, or --from"));
    let board = SetupArgs { player: Some("lobby".into()), board: Some("toaster".into()), ..office };
    assert!(error(board).contains("there is no board 'toaster'"));
    assert!(place.files().is_empty(), "{:?}", place.files());
}

#[test]
fn the_boot_partition_is_read_and_blanked() {
    let place = Place::new();
    fs::create_dir(place.at("boot")).unwrap();
    let boot = place.at("boot/jukebox.toml");
    // A wrong one stays where it is, and so does what is in place.
    fs::write(&boot, FILE).unwrap();
    let (done, _) = run(&place.args(), "");
    assert!(done.unwrap_err().to_string().contains("insecure = true"));
    assert_eq!((fs::read_to_string(&boot).unwrap().as_str(), place.files().len()), (FILE, 1));
    fs::write(&boot, FILE.replace("[office]", "[office]\ninsecure = true")).unwrap();
    let (done, said) = run(&place.args(), "");
    done.unwrap();
    assert!(said.contains("which is blank now"), "{said}");
    let text = fs::read_to_string(place.args().config).unwrap();
    assert!(text.starts_with("# of the office") && text.contains("secret"), "as it was, comments too: {text}");
    assert_eq!(fs::metadata(&boot).unwrap().len(), 0);
    // A blank one is no file: what is in place stays.
    run(&SetupArgs { name: Some("Bar".into()), ..place.args() }, "").0.unwrap();
    let again = fs::read_to_string(place.args().config).unwrap();
    assert!(again.contains("name = \"Bar\"") && again.contains("secret"), "{again}");
    let old = fs::read_to_string(place.at("etc/jukebox.toml.old-1")).unwrap();
    assert_eq!(old, text);
}

#[test]
fn answers_do_the_same_and_an_end_of_input_writes_nothing() {
    let place = Place::new();
    fs::create_dir(place.at("etc")).unwrap();
    let from = place.at("lobby.toml");
    fs::write(&from, FILE.replace("[office]", "[office]\ninsecure = true")).unwrap();
    let sound = place.at("a.wav");
    let args = SetupArgs {
        output: vec![format!("unpaced:{}", sound.display()), "hw:CARD=nowhere".into()],
        yes: false,
        ..place.args()
    };
    let (office, rest) = (format!("{}\n", from.display()), "\nbar\nThe bar\nsim-oled\n");
    // Site as it is, another id, a name, a board; then the first output is heard, and the second is not there.
    for cut in [office.clone(), format!("{office}{rest}"), format!("{office}{rest}\n")] {
        let (done, _) = run(&args, &cut);
        assert!(done.unwrap_err().to_string().starts_with("no answer; nothing was written"));
        assert!(place.files().is_empty());
    }
    let (done, said) = run(&args, &format!("{office}{rest}\ny\n\n"));
    done.unwrap();
    assert!(said.contains("hw:CARD=nowhere: ") && said.contains("is not there"), "{said}");
    let config = Config::load(&args.config).unwrap();
    assert_eq!((config.office.player.as_str(), config.name.as_str()), ("bar", "The bar"));
    assert_eq!((&config.output.outputs[..], config.board.profile.as_deref()), (&args.output[..1], Some("sim-oled")));
    assert_eq!(config.mqtt.unwrap().password.unwrap().reveal(), "secret");
}
