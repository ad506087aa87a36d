//! The machine's promises, each under its own name: rules one by one, properties of random histories, and an
//! exhaustive search through everything that can go wrong between the machine and its participants.

mod backward;
mod definition;
mod forward;
mod model;
mod properties;
mod purity;
mod story;
