//! The rules of this tree that a machine can check. `docs/ARCHITECTURE.md` gives their reasons.
//!
//! | rule | why |
//! | --- | --- |
//! | crates import one way | a circle can only be read whole |
//! | library crates have none of what they must not know | each is testable without the rest |
//! | `.await` in `engine/src/net/` alone | everything else is plain functions |
//! | `unsafe` in files named `sys.rs` alone | so that it can be read in one sitting |
//! | each file opens with what it is for | a stranger reads the first line |
//! | no file over 600 lines | one idea each |
//! | no note to do something later | an issue has an owner, a note has none |
//! | nothing names the machine it was written on | it works anywhere |
//! | the scenarios' table of contents is whole | it is the map |
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each crate of ours: its folder, whom of us it may use, and what else it must not know.
const CRATES: [Crate; 5] = [
    Crate {
        folder: "store",
        may_use: &[],
        must_not_know: &[
            "anyhow",
            "clap",
            "httparse",
            "monoio",
            "rustls",
            "socket2",
            "tiny_http",
            "toml",
        ],
    },
    Crate {
        folder: "engine",
        may_use: &["store"],
        must_not_know: &["anyhow", "clap", "rusqlite", "tiny_http", "toml"],
    },
    Crate {
        folder: "jail",
        may_use: &[],
        must_not_know: &[
            "anyhow",
            "clap",
            "httparse",
            "monoio",
            "rusqlite",
            "rustls",
            "serde_json",
            "tiny_http",
        ],
    },
    Crate {
        folder: "dash",
        may_use: &["store"],
        must_not_know: &["anyhow", "clap", "monoio", "rusqlite", "rustls", "toml"],
    },
    Crate {
        folder: "",
        may_use: &["store", "engine", "jail", "dash"],
        must_not_know: &["httparse", "monoio", "rusqlite", "tiny_http"],
    },
];

struct Crate {
    folder: &'static str,
    may_use: &'static [&'static str],
    must_not_know: &'static [&'static str],
}

/// Lines of a source file: a screen holds one, a reader a dozen screens.
const LINES_MAX: usize = 600;

#[test]
fn crates_import_one_way() {
    let mut broken = Vec::new();
    for it in &CRATES {
        let manifest = read(&root().join(it.folder).join("Cargo.toml"));
        for name in dependencies(&manifest) {
            let of_ours = name.strip_prefix("agent-gate-");
            if of_ours.is_some_and(|ours| !it.may_use.contains(&ours)) {
                broken.push(format!("{}/Cargo.toml: must not use {name}", it.folder));
            }
            if it.must_not_know.contains(&name.replace('-', "_").as_str()) {
                broken.push(format!("{}/Cargo.toml: must not know {name}", it.folder));
            }
        }
        let forbidden = CRATES.iter().map(|other| other.folder).filter(|other| {
            !other.is_empty() && *other != it.folder && !it.may_use.contains(other)
        });
        let forbidden: Vec<_> = forbidden.map(|other| format!("agent_gate_{other}")).collect();
        for file in rust_files(&root().join(it.folder).join("src")) {
            let named = forbidden.iter().filter(|name| has_word(&code(&read(&file)), name));
            broken.extend(named.map(|name| format!("{}: must not use {name}", shown(&file))));
        }
    }
    none(&broken);
}

/// The environment is read in one crate, once; the others are told.
#[test]
fn libraries_read_no_environment() {
    let reads = ["env::var(", "env::var_os(", "env::vars(", "env::vars_os(", "env::args"];
    let broken = library_sources().into_iter().filter(|file| {
        let text = read(file);
        let code = without_tests(&text);
        reads.iter().any(|read| code.contains(read))
    });
    none(&broken.map(|file| shown(&file)).collect::<Vec<_>>());
}

#[test]
fn only_net_waits() {
    let net = root().join("engine/src/net");
    let broken =
        sources().into_iter().filter(|file| !file.starts_with(&net) && awaits(&code(&read(file))));
    none(&broken.map(|file| shown(&file)).collect::<Vec<_>>());
}

#[test]
fn only_sys_is_unsafe() {
    let broken = all_rust_files().into_iter().filter(|file| {
        file.file_name().is_none_or(|name| name != "sys.rs") && is_unsafe(&code(&read(file)))
    });
    none(&broken.map(|file| shown(&file)).collect::<Vec<_>>());
}

#[test]
fn each_file_opens_with_its_purpose() {
    let says = |text: &str| {
        text.lines().next().is_some_and(|line| line.starts_with("//! ") && line.len() > 12)
    };
    let broken = all_rust_files().into_iter().filter(|file| !says(&read(file)));
    none(&broken.map(|file| shown(&file)).collect::<Vec<_>>());
}

#[test]
fn files_are_small() {
    let long = sources().into_iter().filter_map(|file| {
        let lines = read(&file).lines().count();
        (lines > LINES_MAX).then(|| format!("{}: {lines} lines", shown(&file)))
    });
    none(&long.collect::<Vec<_>>());
}

#[test]
fn nothing_is_put_off() {
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
    none(&lines_with(|line| words.iter().any(|word| has_word(line, word))));
}

#[test]
fn no_workplace_is_named() {
    let names = [concat!("/wo", "rk/"), concat!("../sha", "red"), concat!("/fa", "rm/")];
    none(&lines_with(|line| names.iter().any(|name| line.contains(name))));
}

#[test]
fn the_scenarios_have_a_table_of_contents() {
    let folder = root().join("tests/scenarios");
    let text = read(&folder.join("main.rs"));
    let modules = text.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
    let missing = modules
        .filter(|module| *module != "support" && !text.contains(&format!("//! | [`{module}`] |")));
    none(&missing.collect::<Vec<_>>());
}

/// The rules themselves see what they are to see.
#[test]
fn the_rules_can_be_broken() {
    assert!(is_unsafe(&code(concat!("let x = uns", "afe { y };"))));
    assert!(is_unsafe(&code(concat!("uns", "afe fn f() {}"))));
    let harmless = concat!("// uns", "afe { in words }\nlet csp = \"unsafe-inline\";");
    assert!(!is_unsafe(&code(harmless)));
    assert!(!awaits(&code("    // x.await\n/// y.await\nself.await_listeners()")));
    assert!(awaits(&code("x.await // fine")));
    assert!(awaits(&code("x.await?")));
    assert!(has_word("use agent_gate_jail::Plan;", "agent_gate_jail"));
    assert!(!has_word("use agent_gate_jailer;", "agent_gate_jail"));
    assert!(has_word("// A note: fix it", "note"));
    let manifest = "[dependencies]\na-b.workspace = true\nc = \"1\"\n[dev-dependencies]\nd = \"1\"\n\
                    [target.'cfg(unix)'.dependencies]\ne = { version = \"1\" }\n";
    assert_eq!(dependencies(manifest), ["a-b", "c", "e"]);
    assert_eq!(without_tests("a\n#[cfg(test)]\nmod tests {\nb\n"), "a\n");
    assert!(!rust_files(&root().join("engine/src/net")).is_empty());
    assert!(texts().iter().any(|file| file.ends_with("Cargo.toml")));
}

#[track_caller]
fn none<T: AsRef<str>>(broken: &[T]) {
    let lines: Vec<_> = broken.iter().map(|line| format!("  {}", line.as_ref())).collect();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}

/// `file:line: text` for each line of each text file that `is_wrong`.
fn lines_with(is_wrong: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for file in texts() {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let wrong = text.lines().enumerate().filter(|(_, line)| is_wrong(line));
        found.extend(wrong.map(|(n, line)| format!("{}:{}: {}", shown(&file), n + 1, line.trim())));
    }
    found
}

/// Names in the sections that say what a crate is built from; what only its tests use is free.
fn dependencies(manifest: &str) -> Vec<&str> {
    let mut counts = false;
    let mut names = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            counts = line.ends_with("dependencies]")
                && !line.contains("dev-")
                && !line.contains("workspace");
        } else if counts && line.contains('=') && !line.starts_with('#') {
            names.extend(line.split(['.', ' ', '=']).next());
        }
    }
    names
}

/// The lines that are not comments.
fn code(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// What stands before the tests at the bottom of a file.
fn without_tests(text: &str) -> &str {
    text.find("#[cfg(test)]\nmod ").map_or(text, |tests| &text[..tests])
}

fn is_unsafe(code: &str) -> bool {
    let keyword = concat!("uns", "afe");
    ["{", "fn ", "impl ", "extern ", "trait "]
        .iter()
        .any(|next| code.contains(&format!("{keyword} {next}")))
        || code.contains(&format!("allow({keyword}_code)"))
}

/// A method whose name begins so does not count.
fn awaits(code: &str) -> bool {
    has_word(code, ".await")
}

fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back().filter(|_| word.starts_with(is_part));
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

fn shown(file: &Path) -> String {
    file.strip_prefix(root()).unwrap_or(file).display().to_string()
}

/// What programs are built from, without tests and benches.
fn sources() -> Vec<PathBuf> {
    CRATES.iter().flat_map(|it| rust_files(&root().join(it.folder).join("src"))).collect()
}

fn library_sources() -> Vec<PathBuf> {
    let own = root().join("src");
    sources().into_iter().filter(|file| !file.starts_with(&own)).collect()
}

fn all_rust_files() -> Vec<PathBuf> {
    rust_files(root())
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let files = files(folder).into_iter();
    files.filter(|file| file.extension().is_some_and(|it| it == "rs")).collect()
}

/// Everything that a person wrote as text. Fixtures are what others wrote.
fn texts() -> Vec<PathBuf> {
    let kinds = ["rs", "toml", "md", "yml", "sh", "py", "js", "css", "html", "sql", "txt"];
    let is_text = |file: &PathBuf| {
        let extension = file.extension().and_then(|it| it.to_str());
        extension.is_none_or(|it| kinds.contains(&it))
    };
    let fixtures = root().join("fixtures");
    files(root()).into_iter().filter(|f| is_text(f) && !f.starts_with(&fixtures)).collect()
}

/// All files below, in order, without what git and cargo keep.
fn files(folder: &Path) -> Vec<PathBuf> {
    let skipped = BTreeSet::from([".git", "target", "Cargo.lock"]);
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let entry = entry.unwrap();
            if entry.file_name().to_str().is_some_and(|name| skipped.contains(name)) {
                continue;
            }
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => folders.push(entry.path()),
                kind if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found.sort();
    found
}
