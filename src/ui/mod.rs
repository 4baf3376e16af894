//! The web inbox: pages that a browser shows without a script, and that move when it has one.
//!
//! - [`mod@router`]: the table of pages; [`dress`]: what every answer carries, and how a problem looks;
//! - [`sign_in`]: in and out; [`home`], [`review`], [`run`]: a file per page; [`live`]: the same while it happens;
//! - [`page`]: a review made ready to be shown, to whoever may see it ([`viewer`]), from [`facts`]; `links`: the
//!   same behind a mailed link; [`params`], [`answer`]: its forms;
//! - [`diff`]: what an edit changes; [`waterfall`]: what a run did when; [`when`]: moments;
//! - [`text`]: text of others made harmless; [`assets`]: the files beside the pages.
//!
//! Templates are in `templates/`, compiled in. They are given [`text::Inert`] for whatever others wrote.

pub mod answer;
pub mod assets;
pub mod diff;
pub mod dress;
pub mod facts;
mod home;
mod links;
mod live;
pub mod page;
pub mod params;
pub mod review;
pub mod router;
mod run;
mod sign_in;
pub mod text;
pub mod viewer;
pub mod waterfall;
pub mod when;

pub use router::serve;
