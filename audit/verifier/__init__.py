"""What `audit.verify` consists of: opening a bundle, walking its entries once, and holding evidence against them."""
