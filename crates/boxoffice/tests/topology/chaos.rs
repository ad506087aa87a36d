//! What goes away while a crowd buys.
