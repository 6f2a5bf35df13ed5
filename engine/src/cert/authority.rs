//! The local CA: one P-256 key and certificate on disk, made on first use.
//!
//! Nothing but the runs' own trust files names it, so it is short-lived and renewed by itself.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::Error;

/// How long a CA is valid.
const VALIDITY: Duration = Duration::from_secs(365 * DAY_SECONDS);
/// A CA that ends sooner than this is replaced when the gate starts.
const RENEWAL: Duration = Duration::from_secs(60 * DAY_SECONDS);
const DAY_SECONDS: u64 = 24 * 60 * 60;

/// The CA, ready to sign.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
}

impl Authority {
    /// Loads the CA in `folder`, or makes one there.
    ///
    /// # Errors
    /// When a file cannot be read or written, or the key's mode lets others read it.
    pub(crate) fn load_or_create(folder: &Path) -> Result<Self, Error> {
        let files = Files::new(folder);
        match files.load()? {
            Some(authority) => Ok(authority),
            None => files.create(),
        }
    }

    /// Until when the CA in `folder` is valid; `None` when there is none that the next gate would
    /// use.
    ///
    /// # Errors
    /// As of [`Self::load_or_create`].
    pub(crate) fn valid_until(folder: &Path) -> Result<Option<SystemTime>, Error> {
        let found = Files::new(folder).load()?;
        Ok(found.and_then(|authority| end_of_validity(&authority.certificate_pem)))
    }

    /// What signs leaves.
    pub(crate) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// The certificate as PEM.
    pub(crate) fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }
}

/// Where the CA lies.
struct Files {
    folder: PathBuf,
    key: PathBuf,
    certificate: PathBuf,
}

impl Files {
    fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            key: folder.join("key.pem"),
            certificate: folder.join("cert.pem"),
        }
    }

    /// The CA on disk; `None` when there is none, half of one, or one that ends soon.
    fn load(&self) -> Result<Option<Authority>, Error> {
        let Some(key_pem) = read_if_present(&self.key)? else { return Ok(None) };
        check_private(&self.key)?;
        let Some(certificate_pem) = read_if_present(&self.certificate)? else { return Ok(None) };
        let broken = |reason: String| Error::Authority {
            path: self.folder.clone(),
            reason: format!("{reason}; remove the folder to have a new CA made"),
        };
        let key = KeyPair::from_pem(&key_pem).map_err(|e| broken(e.to_string()))?;
        let end =
            end_of_validity(&certificate_pem).ok_or_else(|| broken("no certificate".into()))?;
        if end < SystemTime::now() + RENEWAL {
            return Ok(None);
        }
        let issuer =
            Issuer::from_ca_cert_pem(&certificate_pem, key).map_err(|e| broken(e.to_string()))?;
        Ok(Some(Authority { issuer, certificate_pem }))
    }

    fn create(&self) -> Result<Authority, Error> {
        let key = KeyPair::generate().map_err(|e| self.failed(&e))?;
        let certificate_pem = params().self_signed(&key).map_err(|e| self.failed(&e))?.pem();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(|e| self.failed(&e))?;
        // The key first: a certificate without its key would be of no use to anyone.
        write_private(&self.key, &key.serialize_pem()).map_err(|e| self.failed(&e))?;
        write_private(&self.certificate, &certificate_pem).map_err(|e| self.failed(&e))?;
        let issuer =
            Issuer::from_ca_cert_pem(&certificate_pem, key).map_err(|e| self.failed(&e))?;
        Ok(Authority { issuer, certificate_pem })
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> Error {
        Error::Authority { path: self.folder.clone(), reason: error.to_string() }
    }
}

/// The certificate's parameters: what strict verifiers (Python 3.13, Go, Java) ask of a CA.
fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, "agent-gate local CA");
    name.push(DnType::OrganizationName, "agent-gate");
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_secs(DAY_SECONDS)).into();
    params.not_after = (now + VALIDITY).into();
    params
}

fn end_of_validity(certificate_pem: &str) -> Option<SystemTime> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate_pem.as_bytes()).ok()?;
    let end = pem.parse_x509().ok()?.validity().not_after.timestamp();
    Some(UNIX_EPOCH + Duration::from_secs(end.try_into().ok()?))
}

fn read_if_present(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::Authority { path: path.to_owned(), reason: e.to_string() }),
    }
}

/// A key that others may read is not a key any more.
fn check_private(path: &Path) -> Result<(), Error> {
    let refused = |reason| Error::Authority { path: path.to_owned(), reason };
    let metadata = fs::symlink_metadata(path).map_err(|e| refused(e.to_string()))?;
    let mode = metadata.mode() & 0o777;
    if !metadata.is_file() {
        return Err(refused("is not a regular file".to_owned()));
    }
    if mode & 0o177 != 0 {
        return Err(refused(format!(
            "mode is {mode:04o}, wider than 0600: others may have read the key; \
             remove the folder to have a new CA made"
        )));
    }
    Ok(())
}

/// Writes a file that never exists half-written or readable by others.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let _ = fs::remove_file(&temporary);
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_ca_is_made_once_and_kept_private() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("ca");
        assert!(Authority::valid_until(&folder).unwrap().is_none());
        let first = Authority::load_or_create(&folder).unwrap();
        let second = Authority::load_or_create(&folder).unwrap();
        assert_eq!(first.certificate_pem(), second.certificate_pem());
        let left = Authority::valid_until(&folder).unwrap().unwrap() - VALIDITY;
        assert!(left <= SystemTime::now());
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&folder.join("key.pem")), 0o600);
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        drop(Authority::load_or_create(folder.path()).unwrap());
        let key = folder.path().join("key.pem");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        let Err(error) = Authority::load_or_create(folder.path()) else { panic!("accepted") };
        assert!(error.to_string().contains("0640"), "{error}");
    }

    #[test]
    fn half_a_ca_is_made_whole() {
        let folder = tempfile::tempdir().unwrap();
        drop(Authority::load_or_create(folder.path()).unwrap());
        fs::remove_file(folder.path().join("cert.pem")).unwrap();
        Authority::load_or_create(folder.path()).unwrap();
        fs::remove_file(folder.path().join("key.pem")).unwrap();
        Authority::load_or_create(folder.path()).unwrap();
    }

    #[test]
    fn the_certificate_says_what_strict_verifiers_ask() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(folder.path()).unwrap();
        let pem = authority.certificate_pem();
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        let constraints = certificate.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, Some(0));
        assert!(certificate.key_usage().unwrap().unwrap().value.key_cert_sign());
        let text = format!("{:?}", certificate.extensions());
        assert!(text.contains("SubjectKeyIdentifier") && text.contains("AuthorityKeyIdentifier"));
    }
}
