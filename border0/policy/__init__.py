"""Who may do what, and why: Border0's v2 policy documents, parsed, decided and explained."""
