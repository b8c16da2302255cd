"""The page of reports, live while runs go on."""
