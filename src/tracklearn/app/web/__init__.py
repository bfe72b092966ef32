"""The page: search people, review who is who, look at tracks and at a training, forget somebody."""
