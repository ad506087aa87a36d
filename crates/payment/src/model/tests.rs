//! Tables of what a payment may become.
