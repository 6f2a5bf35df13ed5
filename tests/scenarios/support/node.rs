//! Node, and a folder of npm packages (`undici`, `ws`) for its scripts: the one that
//! `AGENT_GATE_TEST_NODE_PACKAGES` names, else one that `npm install` makes once below the build
//! folder. Scripts find the packages by `NODE_PATH`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use super::tools::{made_once, need, step};

/// The packages and their versions.
const MANIFEST: &str = include_str!("node/package.json");

const CURE: &str = "set AGENT_GATE_TEST_NODE_PACKAGES to a folder that `npm install` was run in \
                    with tests/scenarios/support/node/package.json";

/// A folder whose `node_modules` holds the packages. Panics, and says what to do, when there is
/// none to be had.
pub(crate) fn package_folder() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| match std::env::var_os("AGENT_GATE_TEST_NODE_PACKAGES") {
        Some(folder) => {
            let folder = PathBuf::from(folder);
            assert!(is_whole(&folder), "{} lacks a package; {CURE}", folder.display());
            folder
        }
        None => made_once("scenario-node", is_whole, install),
    })
}

/// `env NODE_PATH=… node ARGS…`: the argv of a Node whose `require` finds the packages.
pub(crate) fn node(args: &[&str]) -> Vec<String> {
    let modules = package_folder().join("node_modules");
    let path = format!("NODE_PATH={}", modules.to_str().expect("a UTF-8 build folder"));
    let words = ["env", &path, need("node", "nodejs")];
    words.iter().chain(args).map(|word| (*word).to_owned()).collect()
}

/// Whether every package is there in its version.
fn is_whole(folder: &Path) -> bool {
    let manifest: Value = serde_json::from_str(MANIFEST).expect("a manifest of ours");
    let wanted = manifest["dependencies"].as_object().expect("dependencies");
    wanted.iter().all(|(name, version)| {
        let installed = folder.join("node_modules").join(name).join("package.json");
        let text = std::fs::read_to_string(installed).unwrap_or_default();
        serde_json::from_str::<Value>(&text).is_ok_and(|found| found["version"] == *version)
    })
}

fn install(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("package.json"), MANIFEST).unwrap();
    let mut npm = Command::new(need("npm", "npm"));
    npm.args(["install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]);
    step(npm.current_dir(folder), CURE);
}
