//! The names a jail has looked up, and the addresses it was told.
//!
//! A tool that ignores proxy variables resolves a name first. It is told an address that belongs
//! to nobody (198.18.0.0/15, RFC 2544); when it connects there, the address says which name it
//! meant.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;

use agent_gate_store::HostName;

use crate::limits::SYNTHETIC_NAMES_MAX;

/// The first synthetic address.
const FIRST: u32 = u32::from_be_bytes([198, 18, 0, 1]);

/// Names and addresses of one run.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    by_name: HashMap<HostName, u32>,
    by_number: HashMap<u32, HostName>,
    next: u32,
}

impl Names {
    /// The address of `name`: the same for every question of the run.
    pub(super) fn address_of(&self, name: &HostName) -> Ipv4Addr {
        let mut table = self.lock();
        let number = match table.by_name.get(name) {
            Some(&number) => number,
            None => table.insert(name),
        };
        Ipv4Addr::from(FIRST + number)
    }

    /// The name that was told `address`.
    pub(super) fn name_of(&self, address: IpAddr) -> Option<HostName> {
        let IpAddr::V4(v4) = address.to_canonical() else { return None };
        let number = u32::from(v4).checked_sub(FIRST)?;
        self.lock().by_number.get(&number).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        // The table is valid after every statement, so a panic elsewhere has not harmed it.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Table {
    fn insert(&mut self, name: &HostName) -> u32 {
        let number = self.next;
        // Beyond the bound the numbers start over and the oldest names are forgotten.
        self.next = (self.next + 1) % u32::try_from(SYNTHETIC_NAMES_MAX).unwrap_or(u32::MAX);
        if let Some(forgotten) = self.by_number.insert(number, name.clone()) {
            self.by_name.remove(&forgotten);
        }
        self.by_name.insert(name.clone(), number);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> HostName {
        HostName::parse(text).unwrap()
    }

    #[test]
    fn a_name_keeps_its_address() {
        let names = Names::default();
        let a = names.address_of(&name("a.example"));
        let b = names.address_of(&name("b.example"));
        assert_ne!(a, b);
        assert_eq!(names.address_of(&name("A.example.")), a);
        assert_eq!(names.name_of(a.into()), Some(name("a.example")));
        assert_eq!(names.name_of(a.to_ipv6_mapped().into()), Some(name("a.example")));
        assert_eq!(names.name_of([203, 0, 113, 1].into()), None);
    }

    #[test]
    fn the_oldest_names_are_forgotten() {
        let names = Names::default();
        let first = names.address_of(&name("first.example"));
        for i in 0..SYNTHETIC_NAMES_MAX {
            names.address_of(&name(&format!("n{i}.example")));
        }
        assert_ne!(names.name_of(first.into()), Some(name("first.example")));
        let again = names.address_of(&name("first.example"));
        assert_eq!(names.name_of(again.into()), Some(name("first.example")));
    }
}
