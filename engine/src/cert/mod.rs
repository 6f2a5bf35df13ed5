//! The local certificate authority and the leaves it signs.

pub(crate) mod authority;
pub(crate) mod leaf;
