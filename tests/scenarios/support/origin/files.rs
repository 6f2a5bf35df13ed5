//! Files that a test has put below the origin's folder, as a package registry serves them: by path,
//! a folder by the index in it.

use std::io;
use std::path::{Component, Path, PathBuf};

use super::answer::Answer;
use super::log::Seen;

/// What a request's path names, if there is such a file.
pub(super) fn find(seen: &Seen, folder: &Path) -> Option<PathBuf> {
    let below = Path::new(seen.path().trim_start_matches('/'));
    let is_inside = below.components().all(|part| matches!(part, Component::Normal(_)));
    let named = folder.join(below);
    let places = [named.clone(), named.join("index.html"), named.join("index.json")];
    places.into_iter().find(|place| is_inside && place.is_file())
}

pub(super) fn serve(file: &Path, answer: &mut Answer<'_>) -> io::Result<()> {
    let kind = match file.extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    };
    answer.whole(200, &[("Content-Type", kind)], &std::fs::read(file)?)
}
