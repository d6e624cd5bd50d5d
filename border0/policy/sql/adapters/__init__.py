"""The process that parses large statements; it may die without harm."""
