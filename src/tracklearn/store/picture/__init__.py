"""Pictures in and out: headers, decoding, JPEG crops, images that stay where they are."""
