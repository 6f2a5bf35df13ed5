//! Where settings and data are kept: the XDG places, with the password file behind `HOME`.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};

/// The folder each kind of file goes into, below the XDG base.
const FOLDER: &str = "agent-gate";

/// The two places, absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Paths {
    /// Settings and host lists; the gate only reads here.
    pub(crate) config_dir: PathBuf,
    /// Journal, index, CA, control socket.
    pub(crate) data_dir: PathBuf,
}

impl Paths {
    /// The places that the options name, else those of the user's environment.
    ///
    /// # Errors
    /// When there is no home folder to be found and no option to do without it.
    pub(crate) fn find(config_dir: Option<&Path>, data_dir: Option<&Path>) -> anyhow::Result<Self> {
        let environment = Environment::of_process();
        Ok(Self {
            config_dir: place(config_dir, || environment.config_dir())?,
            data_dir: place(data_dir, || environment.data_dir())?,
        })
    }

    /// Makes the settings folder, empty, so that a jail can hide it and an agent not plant one.
    ///
    /// # Errors
    /// When it cannot be made; the message names the option that chooses another.
    pub(crate) fn create_config_dir(&self) -> anyhow::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.config_dir).with_context(|| {
            format!("cannot make {} (--config-dir chooses another)", self.config_dir.display())
        })
    }
}

/// What of the environment says where things are.
#[derive(Debug, Default)]
struct Environment {
    config_home: Option<OsString>,
    data_home: Option<OsString>,
    home: Option<OsString>,
    /// From the password file, for when `HOME` is not set (cron, some containers).
    home_of_user: Option<PathBuf>,
}

impl Environment {
    fn of_process() -> Self {
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
        Self {
            config_home: std::env::var_os("XDG_CONFIG_HOME"),
            data_home: std::env::var_os("XDG_DATA_HOME"),
            home_of_user: home.is_none().then(home_from_password_file).flatten(),
            home,
        }
    }

    fn config_dir(&self) -> anyhow::Result<PathBuf> {
        self.base(self.config_home.as_ref(), ".config", "--config-dir")
    }

    fn data_dir(&self) -> anyhow::Result<PathBuf> {
        self.base(self.data_home.as_ref(), ".local/share", "--data-dir")
    }

    fn base(&self, xdg: Option<&OsString>, in_home: &str, option: &str) -> anyhow::Result<PathBuf> {
        // The XDG specification: a relative path there is invalid and to be ignored.
        if let Some(base) = xdg.map(Path::new).filter(|base| base.is_absolute()) {
            return Ok(base.join(FOLDER));
        }
        let home = self.home.as_ref().map(PathBuf::from).or_else(|| self.home_of_user.clone());
        home.map(|home| home.join(in_home).join(FOLDER))
            .ok_or_else(|| anyhow!("no home folder: HOME is not set; use {option} DIR"))
    }
}

fn home_from_password_file() -> Option<PathBuf> {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok()??;
    (!user.dir.as_os_str().is_empty()).then_some(user.dir)
}

/// Absolute, because the gate works from `/` whatever folder started it.
fn place(
    option: Option<&Path>,
    default: impl FnOnce() -> anyhow::Result<PathBuf>,
) -> anyhow::Result<PathBuf> {
    let path = option.map_or_else(default, |path| Ok(path.to_owned()))?;
    std::path::absolute(&path).with_context(|| format!("folder {:?}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(config: Option<&str>, home: Option<&str>, user: Option<&str>) -> Environment {
        Environment {
            config_home: config.map(OsString::from),
            data_home: None,
            home: home.map(OsString::from),
            home_of_user: user.map(PathBuf::from),
        }
    }

    #[test]
    fn the_first_place_that_is_known_counts() {
        for (config, home, user, expected) in [
            (Some("/x"), Some("/h"), None, "/x/agent-gate"),
            (None, Some("/h"), Some("/u"), "/h/.config/agent-gate"),
            (Some("relative"), Some("/h"), None, "/h/.config/agent-gate"),
            (None, None, Some("/u"), "/u/.config/agent-gate"),
        ] {
            let found = environment(config, home, user).config_dir().unwrap();
            assert_eq!(found, Path::new(expected));
        }
    }

    #[test]
    fn no_home_at_all_names_the_option() {
        let error = environment(None, None, None).data_dir().unwrap_err();
        assert!(error.to_string().contains("--data-dir"), "{error}");
    }

    #[test]
    fn options_become_absolute() {
        let found = place(Some(Path::new("here")), || unreachable!()).unwrap();
        assert_eq!(found, std::env::current_dir().unwrap().join("here"));
    }
}
