"""Who is who on disk: the table of identities, what a person said of it, what is known of the cameras."""
