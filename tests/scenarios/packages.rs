//! Package managers through the gate, each against a registry of one package that the test makes and
//! the origin serves: pip (PEP 503), npm, and cargo (a sparse index). They start with an empty home,
//! and whom they trust is what `agent-gate run` tells them. What each took is what the origin serves,
//! byte for byte, and all that it asked is on disk.

use std::path::Path;

use crate::support::bench::{Bench, Output, finish};
use crate::support::journal::compare;
use crate::support::origin::Seen;
use crate::support::python::interpreter;
use crate::support::tools::{need, toolchain};

/// A simple index with a wheel.
const WHEEL: &str = r##"
import hashlib, os, zipfile
os.makedirs("simple/tiny")
wheel = "simple/tiny/tiny-1.0-py3-none-any.whl"
info = "tiny-1.0.dist-info/"
with zipfile.ZipFile(wheel, "w") as z:
    z.writestr("tiny.py", "word = 'made up'\n" * 10000)
    z.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
    z.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    z.writestr(info + "RECORD", "")
digest = hashlib.sha256(open(wheel, "rb").read()).hexdigest()
name = os.path.basename(wheel)
page = f'<!DOCTYPE html><title>tiny</title><a href="{name}#sha256={digest}">{name}</a>'
open("simple/tiny/index.html", "w").write(page)
"##;

/// A packument and its tarball.
const TARBALL: &str = r#"
import base64, hashlib, io, json, os, tarfile
os.makedirs("tiny/-")
about = {"name": "tiny", "version": "1.0.0", "main": "index.js"}
files = {"package.json": json.dumps(about), "index.js": "module.exports = 'made up';\n" * 10000}
with tarfile.open("tiny/-/tiny-1.0.0.tgz", "w:gz") as t:
    for name, text in files.items():
        entry = tarfile.TarInfo("package/" + name)
        entry.size = len(text)
        t.addfile(entry, io.BytesIO(text.encode()))
tarball = open("tiny/-/tiny-1.0.0.tgz", "rb").read()
about["dist"] = {
    "tarball": "https://npm.test/tiny/-/tiny-1.0.0.tgz",
    "shasum": hashlib.sha1(tarball).hexdigest(),
    "integrity": "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode(),
}
packument = {"name": "tiny", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": about}}
json.dump(packument, open("tiny/index.json", "w"))
"#;

/// A sparse index and a crate.
const CRATE: &str = r#"
import hashlib, io, json, os, tarfile
os.makedirs("index/ti/ny")
os.makedirs("crates/tiny/1.0.0")
manifest = '[package]\nname = "tiny"\nversion = "1.0.0"\nedition = "2021"\n'
files = {"Cargo.toml": manifest, "src/lib.rs": "//! Made up.\n" * 10000}
with tarfile.open("crates/tiny/1.0.0/download", "w:gz") as t:
    for name, text in files.items():
        entry = tarfile.TarInfo("tiny-1.0.0/" + name)
        entry.size = len(text)
        t.addfile(entry, io.BytesIO(text.encode()))
digest = hashlib.sha256(open("crates/tiny/1.0.0/download", "rb").read()).hexdigest()
about = {"name": "tiny", "vers": "1.0.0", "deps": [], "cksum": digest, "features": {}, "yanked": False}
open("index/ti/ny/tiny", "w").write(json.dumps(about) + "\n")
json.dump({"dl": "https://crates.test/crates"}, open("index/config.json", "w"))
"#;

#[test]
fn pip_download() {
    let bench = Bench::new();
    publish(&bench, WHEEL);
    let index = "https://pypi.test/simple/";
    let argv = ["-m", "pip", "download", "--no-deps", "--index-url", index, "-d", "got", "tiny"];
    bench.run(&[&[interpreter()], &argv[..]].concat()).ok();
    let wheel = "tiny-1.0-py3-none-any.whl";
    let served = bench.origin.files().join("simple/tiny").join(wheel);
    same(&bench.work().join("got").join(wheel), &served);
    assert!(compare(&bench.journal(), &bench.origin) >= 2, "an index and a wheel");
}

/// npm's audit is a request with a gzip coded body: it arrives as it was sent.
#[test]
fn npm_install() {
    let bench = Bench::new();
    publish(&bench, TARBALL);
    std::fs::write(bench.work().join("package.json"), "{\"private\":true}").unwrap();
    need("node", "nodejs");
    bench.run(&[need("npm", "npm"), "install", "--registry=https://npm.test/", "tiny@1.0.0"]).ok();
    let installed = std::fs::read_to_string(bench.work().join("node_modules/tiny/index.js"));
    assert_eq!(installed.unwrap(), "module.exports = 'made up';\n".repeat(10_000));
    let tarball = bench.origin.only("/tiny/-/tiny-1.0.0.tgz").sent.expect("an answer").body;
    let served = std::fs::read(bench.origin.files().join("tiny/-/tiny-1.0.0.tgz")).unwrap();
    assert_eq!(tarball.whole(), Some(&served[..]));
    let coded = |seen: &Seen| seen.field("content-encoding") == Some("gzip");
    assert!(bench.origin.settled().iter().any(coded), "{:#?}", bench.origin.seen());
    assert!(compare(&bench.journal(), &bench.origin) >= 3, "a packument, a tarball, an audit");
}

#[test]
fn cargo_fetch() {
    let bench = Bench::new();
    publish(&bench, CRATE);
    let project = bench.work();
    std::fs::create_dir_all(project.join("src")).unwrap();
    std::fs::create_dir_all(project.join(".cargo")).unwrap();
    std::fs::write(project.join("src/lib.rs"), "").unwrap();
    let manifest = "[package]\nname = \"user\"\nversion = \"1.0.0\"\nedition = \"2021\"\n\
                    [dependencies]\ntiny = { version = \"1\", registry = \"test\" }\n";
    std::fs::write(project.join("Cargo.toml"), manifest).unwrap();
    let registry = "[registries.test]\nindex = \"sparse+https://crates.test/index/\"\n";
    std::fs::write(project.join(".cargo/config.toml"), registry).unwrap();
    let output = cargo(&bench, &["fetch"]).ok();
    let cache = bench.home().join(".cargo/registry/cache");
    let folder = std::fs::read_dir(cache).unwrap().next().expect("one registry").unwrap().path();
    let served = bench.origin.files().join("crates/tiny/1.0.0/download");
    same(&folder.join("tiny-1.0.0.crate"), &served);
    assert_eq!(compare(&bench.journal(), &bench.origin), 3, "{output:?}");
}

/// `cargo ARGS…` inside a run, with the `rustc` that belongs to it.
fn cargo(bench: &Bench, args: &[&str]) -> Output {
    let tools = toolchain().join("bin");
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let argv = ["env", &format!("PATH={path}"), "cargo"];
    bench.run(&[&argv[..], args].concat())
}

/// Lets a script of Python's make what the origin is to serve.
fn publish(bench: &Bench, script: &str) {
    std::fs::create_dir_all(bench.origin.files()).unwrap();
    let mut make = bench.command(interpreter());
    make.args(["-c", script]).current_dir(bench.origin.files());
    finish(make).ok();
}

#[track_caller]
fn same(got: &Path, served: &Path) {
    let (got, served) = (std::fs::read(got).unwrap(), std::fs::read(served).unwrap());
    assert!(got == served, "{} bytes came, {} were served", got.len(), served.len());
}
