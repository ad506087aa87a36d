//! placeholder
pub mod gateway;
pub mod sandbox;
