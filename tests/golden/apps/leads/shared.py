CITIES = {"de": "Köln"}
