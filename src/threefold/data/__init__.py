"""Files and records: who is on which photo, what is wrong with it, its fold, how it is prepared. No torch."""
