"""What a user can ask for, one module per subject. Transactions begin and end here."""
