WEB_DIRECTORY = "./web"
