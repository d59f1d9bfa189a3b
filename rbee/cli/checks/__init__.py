"""What `rbee doctor` looks at. Each check gathers facts and gives one `Finding`."""
