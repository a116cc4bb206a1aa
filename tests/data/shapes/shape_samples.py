"""Small invented logs in the published form of each shape; tests, benchmarks/shapes.py and the fuzzer read them."""

# ruff: noqa: E501  (lines of the samples)

from __future__ import annotations

B, C, U, V = "B00INVENT0", "B00INVENT1", "AINVENTEDUSER1", "AINVENTEDUSER2"
SHA, OTHER_SHA = "0" * 39 + "1", "0" * 39 + "2"
MBID = "00000000-0000-0000-0000-000000000001"
PLACE, SHOP, KIND = "4" + "0" * 23, "5" + "0" * 23, "6" + "0" * 23
REVIEW_2014 = '{"reviewerID": "%s", "asin": "%s", "helpful": [0, 0], "overall": 5.0, "unixReviewTime": %d}\n'
REVIEW_2018 = '{"overall": 5.0, "verified": true, "reviewerID": "%s", "asin": "%s", "unixReviewTime": %d}\n'
EPINIONS = "{'item': '%s', 'user': 'a', 'paid': 9.7, 'time': %d, 'review': \"it's\", 'stars': 4.0}\n"
PLAY = (
    'event.play\t%d\t%d\t{"playtime":-1}\t{"subjects":[{"type":"user","id":7}],"objects":[{"type":"track","id":%d}]}\n'
)
REES46 = "2019-10-01 00:00:%s UTC,%s,%s,2053013552326770905,,brand,35.79,541,72d7\n"
STEAM = "{u'username': u'%s', u'product_id': u'%s', u'date': u'%s', u'text': u'it\\'s', u'early_access': False}\n"
GOODREADS = '{"user_id": "a", "book_id": "%s", "rating": 4, "is_read": true, "date_added": "%s"}\n'
MPD = """{
  "info": {"slice": "0-1"},
  "playlists": [
    {"name": "p", "pid": 7, "tracks": [
      {"pos": 1, "track_uri": "spotify:track:b"},
      {"pos": 0, "track_uri": "spotify:track:a"}
    ]}
  ]
}"""
DIGINETICA = (
    "sessionId;userId;itemId;timeframe;eventdate\n"
    "1;NA;11;90000;2016-05-09\n1;NA;10;500;2016-05-09\n2;NA;13;70000;2016-05-09\n2;7;12;600;2016-05-09\n"
)
TRIVAGO = (
    "user_id,session_id,timestamp,step,action_type,reference,platform,city,device,current_filters,impressions,prices\n"
    "U,s1,1541037460,1,search for poi,Inventedpark,AU,Town,mobile,,,\n"
    'U,s1,1541037461,2,clickout item,109038,AU,"Town, Land",mobile,,109038|6832,10|20\n'
    "U,s1,1541037462,3,interaction item image,6832,AU,Town,mobile,,,\n"
)
MIND = (
    "1\tU1\t11/11/2019 9:05:58 PM\tN1 N2\tN3-0 N4-1\n2\tU1\t11/11/2019 8:05:58 AM\tN1 N2\tN5-1\n"
    "3\tU2\t11/12/2019 12:05:58 AM\t\tN1-1 N2-0\n"
)
KUAIRAND = "user_id,video_id,date,hourmin,time_ms,is_click,is_like\n0,12,20220411,1900,1649675512999,1,0\n0,11,20220411,1900,1649675512388,0,0\n"

# name of the file, its text, the shape, and per user the items in order.
SAMPLES: list[tuple[str, str, str, dict[object, list[object]]]] = [
    (
        "a.inter",
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n7\t12\t4\t300\n7\t10\t5\t100\n8\t10\t3\t50\n",
        "recbole",
        {7: [10, 12], 8: [10]},
    ),
    (
        "a.train.inter",
        "user_id:token\titem_id_list:token_seq\titem_id:token\n1\t5\t6\n1\t5 6\t7\n2\t6\t5\n",
        "recbole",
        {1: [5, 6, 7], 2: [6, 5]},
    ),
    (
        "sessions.jsonl",
        '{"session":3,"events":[{"aid":5,"ts":1661200010000,"type":"clicks"},{"aid":4,"ts":1661200020000,"type":"carts"}]}\n'
        '{"session":4,"events":[{"aid":4,"ts":1661200010000,"type":"clicks"}]}\n',
        "otto",
        {3: [5, 4], 4: [4]},
    ),
    ("behaviors.tsv", MIND, "mind", {"U1": ["N1", "N2", "N5", "N4"], "U2": ["N1"]}),
    ("train-item-views.csv", DIGINETICA, "diginetica", {1: [10, 11], 2: [12, 13]}),
    ("views.csv", DIGINETICA.replace(";", ","), "diginetica", {1: [10, 11], 2: [12, 13]}),
    (
        "yoochoose-clicks.dat",
        "1,2014-04-07T10:51:09.277Z,21,0\n1,2014-04-07T10:50:09.277Z,22,S\n2,2014-04-07T10:50:09.868Z,21,0\n",
        "yoochoose",
        {1: [22, 21], 2: [21]},
    ),
    (
        "yoochoose-buys.dat",
        "1,2014-04-06T18:44:58.314Z,21,12462,1\n1,2014-04-06T18:44:58.325Z,22,10471,1\n1,2014-04-06T18:44:59.325Z,21,0,0\n",
        "yoochoose",
        {1: [21, 22, 21]},
    ),
    (
        "events.csv",
        "timestamp,visitorid,event,itemid,transactionid\n1433221332117,5,view,31,\n1433221332000,5,transaction,30,9\n",
        "retailrocket",
        {5: [30, 31]},
    ),
    ("train.csv", TRIVAGO, "trivago", {"s1": [109038, 6832]}),
    (
        "user_log_format1.csv",
        "user_id,item_id,cat_id,seller_id,brand_id,time_stamp,action_type\n1,10,3,4,5,0901,0\n1,11,3,4,5,831,2\n",
        "ijcai-15",
        {1: [11, 10]},
    ),
    (
        "ijcai2016_taobao.csv",
        "use_ID,sel_ID,ite_ID,cat_ID,act_ID,time\n1,9,10,3,0,20151101\n1,9,11,3,1,20151031\n",
        "ijcai-16",
        {1: [11, 10]},
    ),
    (
        "tianchi_2014002_rec_tmall_log.csv",
        "item_id,user_id,action,vtime\n10,u1,click,2014-01-02 10:00:00\n11,u1,cart,2014-01-02 09:00:00\n",
        "rec-tmall",
        {"u1": [11, 10]},
    ),
    (
        "(sample)sam_tianchi_2014002_rec_tmall_log.csv",
        "item_id,user_id,action,vtime\n10,u1,click,2014/10/1 9:5\n11,u1,cart,2014/10/1 0:0\n",
        "rec-tmall",
        {"u1": [11, 10]},
    ),
    (
        "tianchi_2014002_rec_tmall_log_partc.txt",
        "10\tu1\tclick\t2014-11-01 10:00:00\n11\tu1\talipay\t2014-11-01 09:00:00\n12\tu2\tcollect\t2014-11-01 09:00:00\n",
        "rec-tmall",
        {"u1": [11, 10], "u2": [12]},
    ),
    (
        "tianchi_mobile_recommend_train_user.csv",
        "user_id,item_id,behavior_type,user_geohash,item_category,time\n1,10,1,,3,2014-12-06 10\n1,11,4,9g,3,2014-12-06 02\n",
        "tianchi",
        {1: [11, 10]},
    ),
    (
        "UserBehavior.csv",
        "1,10,3,pv,1511544070\n1,11,3,buy,1511544000\n2,10,3,fav,1511544071\n",
        "taobao",
        {1: [11, 10], 2: [10]},
    ),
    (
        "userid-timestamp-artid-artname-traid-traname.tsv",
        f'user_000001\t2009-05-04T23:08:57Z\t{MBID}\tThe "Band\t{MBID}\tOne\nuser_000001\t2009-05-04T23:00:57Z\t\tThe Band\t\tTwo\n',
        "lastfm-1k",
        {"user_000001": ["The Band - Two", 'The "Band - One']},
    ),
    (
        "usersha1-artmbid-artname-plays.tsv",
        f"{SHA}\t{MBID}\tBand, A\t2137\n{SHA}\t\tOther\t12\n{OTHER_SHA}\t{MBID}\tBand, A\t1\n",
        "lastfm-360k",
        {SHA: ["Band, A", "Other"], OTHER_SHA: ["Band, A"]},
    ),
    ("user_artists.dat", "userID\tartistID\tweight\n2\t51\t13883\n2\t52\t11690\n", "lastfm-2k", {2: [51, 52]}),
    ("mpd.slice.0-999.json", MPD, "spotify", {7: ["spotify:track:a", "spotify:track:b"]}),
    (
        "loc-gowalla_totalCheckins.txt",
        "0\t2010-10-19T23:55:27Z\t30.23\t-97.79\t22\n0\t2010-10-18T22:17:43Z\t30.26\t-97.76\t42\n1\t2010-10-17T23:42:03Z\t30.2\t-97.7\t22\n",
        "gowalla",
        {0: [42, 22], 1: [22]},
    ),
    (
        "loc-brightkite_totalCheckins.txt",
        "0\t2010-10-17T01:48:53Z\t39.747652\t-104.99251\t88c46bf20db295831bd2d1718ad7e6f5\n0\t2010-10-16T06:02:04Z\t39.8\t-105.0\t7a0f88982aa015062b95e3b4843f9ca2\n0\t2010-10-15T06:02:04Z\t0\t0\tee78b1c4a9d5e3f00112233445566778\n",
        "brightkite",
        {
            0: [
                "ee78b1c4a9d5e3f00112233445566778",
                "7a0f88982aa015062b95e3b4843f9ca2",
                "88c46bf20db295831bd2d1718ad7e6f5",
            ]
        },
    ),
    (
        "dataset_TSMC2014_NYC.txt",
        f"1\t{PLACE}\t{KIND}\tCafe\t40.7\t-74.0\t-240\tTue Apr 03 19:00:09 +0000 2012\n"
        f"1\t{SHOP}\t{KIND}\tBar\t40.7\t-74.0\t-240\tTue Apr 03 18:00:09 +0000 2012\n",
        "foursquare",
        {1: [SHOP, PLACE]},
    ),
    (
        "dataset_TSMC2014_TKY.csv",
        "userId,venueId,venueCategoryId,venueCategory,latitude,longitude,timezoneOffset,utcTimestamp\n"
        f"1,{PLACE},{KIND},Cafe,35.7,139.6,540,Tue Apr 03 19:00:09 +0000 2012\n"
        f"1,{SHOP},{KIND},Bar,35.7,139.6,540,Tue Apr 03 18:00:09 +0000 2012\n",
        "foursquare",
        {1: [SHOP, PLACE]},
    ),
    (
        "combined_data_1.txt",
        "1:\n14,3,2005-09-06\n15,5,2005-05-13\n2:\n14,4,2005-09-05\n",
        "netflix",
        {14: [2, 1], 15: [1]},
    ),
    (
        "transactions_train.csv",
        "t_dat,customer_id,article_id,price,sales_channel_id\n2018-09-21,00a,0663713001,0.05,2\n2018-09-20,00a,0541518023,0.03,2\n",
        "hm",
        {"00a": ["0541518023", "0663713001"]},
    ),
    (
        "steam_reviews.json",
        STEAM % ("a", "10", "2017-12-17") + STEAM % ("a", "20", "2016-01-01"),
        "steam",
        {"a": [20, 10]},
    ),
    (
        "australian_user_reviews.json",
        "{'user_id': 'a', 'user_url': 'x', 'reviews': [{'posted': 'Posted November 5, 2011.', 'item_id': '10'}, "
        "{'posted': 'Posted July 15, 2011.', 'item_id': '20'}]}\n",
        "steam",
        {"a": [20, 10]},
    ),
    (
        "australian_users_items.json",
        "{'user_id': 'a', 'items_count': 2, 'items': [{'item_id': '10'}, {'item_id': '20'}]}\n",
        "steam",
        {"a": [10, 20]},
    ),
    (
        "goodreads_interactions.csv",
        "user_id,book_id,is_read,rating,is_reviewed\n0,948,1,5,0\n0,947,1,5,1\n",
        "goodreads",
        {0: [948, 947]},
    ),
    (
        "goodreads_interactions_poetry.json",
        GOODREADS % ("1", "Sun Jul 30 07:44:10 -0700 2017") + GOODREADS % ("2", "Sat Jul 29 23:00:00 -0700 2017"),
        "goodreads",
        {"a": ["2", "1"]},
    ),
    (
        "ratings_Beauty.csv",
        f"{U},{B},5.0,1369699200\n{V},{B},3.0,1355443200\n{U},{C},4.0,1369699100\n",
        "amazon-2014",
        {U: [C, B], V: [B]},
    ),
    (
        "All_Beauty.csv",
        f"{B},{U},5.0,1369699200\n{B},{V},3.0,1355443200\n{C},{U},4.0,1369699100\n",
        "amazon-2018",
        {U: [C, B], V: [B]},
    ),
    ("Beauty_5.json", REVIEW_2018 % (U, B, 1369699200) + REVIEW_2018 % (U, C, 1369699100), "amazon-2018", {U: [C, B]}),
    (
        "Beauty.csv",
        "user_id,parent_asin,rating,timestamp\nAF1,B1,5.0,1609459200000\nAF1,B2,3.0,1577836800000\n",
        "amazon-2023",
        {"AF1": ["B2", "B1"]},
    ),
    (
        "Beauty.jsonl",
        '{"rating": 5.0, "title": "x", "asin": "B9", "parent_asin": "B1", "user_id": "AF1", "timestamp": 1588687728923}\n',
        "amazon-2023",
        {"AF1": ["B1"]},
    ),
    (
        "yelp_academic_dataset_review.json",
        '{"review_id":"r","user_id":"u","business_id":"b","stars":3.0,"useful":0,"text":"x","date":"2018-07-07 22:09:11"}\n'
        '{"review_id":"s","user_id":"u","business_id":"c","stars":3.0,"useful":0,"text":"x","date":"2018-07-07 20:09:11"}\n',
        "yelp",
        {"u": ["c", "b"]},
    ),
    (
        "big_matrix.csv",
        "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n"
        "0,36,138,10867,2020-07-05 00:08:23.438,20200705,1593878903.438,0.01\n"
        "0,35,138,10867,2020-07-05 00:08:22.438,20200705,1593878902.438,0.01\n",
        "kuairec",
        {0: [35, 36]},
    ),
    ("log_standard_4_22_to_5_08_pure.csv", KUAIRAND, "kuairand", {0: [11, 12]}),
    (
        "ratings.csv",
        "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n1,30,3.0,1260759100\n",
        "movielens",
        {1: [30, 31]},
    ),
    ("ratings.dat", "1::31::5::978300760\n1::30::3::978300100\n", "movielens-dat", {1: [30, 31]}),
    ("u.data", "196\t242\t3\t881250949\n196\t302\t3\t881250900\n", "movielens-100k", {196: [302, 242]}),
    (
        "out.invented",
        "% bip weighted posweighted\n% 2 1 2\n1 1 4 1262304001\n1 2 3 1262304000\n",
        "konect",
        {1: [2, 1]},
    ),
    ("out.plain", "% bip unweighted\n1 1\n1 2\n2 1\n", "konect", {1: [1, 2], 2: [1]}),
    ("out.signed", "% bip signed\n1 1 -1 1262304001\n1 2 1 1262304000\n", "konect", {1: [2, 1]}),
    ("edges.txt", "# Directed graph\n# FromNodeId\tToNodeId\n0\t1\n0\t2\n3\t1\n", "snap", {0: [1, 2], 3: [1]}),
    ("export.csv", "sep=;\nuser;item;time\na;x;10\na;y;5\n", "spreadsheet", {"a": ["y", "x"]}),
    (
        "reviews_Beauty_5.json",
        REVIEW_2014 % (U, B, 1369699200) + REVIEW_2014 % (U, C, 1369699100),
        "amazon-2014",
        {U: [C, B]},
    ),
    ("ml-10M100K/ratings.dat", "1::122::5::838985046\n1::185::3.5::838983525\n", "movielens-dat", {1: [185, 122]}),
    (
        "ml-20m/ratings.csv",
        "userId,movieId,rating,timestamp\n1,2,3.5,1112486027\n1,29,3.5,1112484676\n",
        "movielens",
        {1: [29, 2]},
    ),
    (
        "ml-32m/ratings.csv",
        "userId,movieId,rating,timestamp\n1,17,4.0,944249077\n1,25,1.0,944250228\n",
        "movielens",
        {1: [17, 25]},
    ),
    (
        "user_taggedartists-timestamps.dat",
        "userID\tartistID\ttagID\ttimestamp\n2\t52\t13\t1238536800000\n2\t51\t15\t1238536700000\n",
        "lastfm-2k",
        {2: [51, 52]},
    ),
    (
        "user_taggedbookmarks-timestamps.dat",
        "userID\tbookmarkID\ttagID\ttimestamp\n8\t7\t1\t1289255362000\n8\t1\t1\t1289255159000\n",
        "delicious",
        {8: [1, 7]},
    ),
    ("events.idomaar", PLAY % (0, 1390231051, 5) + PLAY % (1, 1390230051, 6), "30music", {7: [6, 5]}),
    (
        "BX-Book-Ratings.csv",
        '"User-ID";"ISBN";"Book-Rating"\n"276725";"034545104X";"0"\n"276725";"0155061224";"5"\n',
        "book-crossing",
        {276725: ["034545104X", "0155061224"]},
    ),
    (
        "epinions.json",
        EPINIONS % ("Printer", 1067299200) + EPINIONS % ("Lamp", 1067299100),
        "epinions",
        {"a": ["Lamp", "Printer"]},
    ),
    ("anime/rating.csv", "user_id,anime_id,rating\n1,20,-1\n1,24,10\n", "anime", {1: [20, 24]}),
    (
        "DMSC.csv",
        "ID,Movie_Name_EN,Movie_Name_CN,Crawl_Date,Number,Username,Date,Star,Comment,Like\n"
        '0,Invented,"x",2017-01-22,1,a,2015-05-13,3," two\nlines",2404\n1,Other,y,2017-01-22,2,a,2015-04-24,2, z,381\n',
        "douban",
        {"a": ["Other", "Invented"]},
    ),
    (
        "ta_feng_all_months_merged.csv",
        '"TRANSACTION_DT","CUSTOMER_ID","AGE_GROUP","PIN_CODE","PRODUCT_SUBCLASS","PRODUCT_ID","AMOUNT","ASSET","SALES_PRICE"\n'
        '"11/2/2000","01104905","45-49","115","110411","4710199010372","2","24","30"\n'
        '"11/1/2000","01104905","45-49","115","120107","4710857472535","1","48","46"\n',
        "ta-feng",
        {"01104905": [4710857472535, 4710199010372]},
    ),
    (
        "online_retail.csv",
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
        "536365,85123A,WHITE HOLDER,6,12/1/2010 8:26,2.55,17850,United Kingdom\n"
        "536367,71053,LANTERN,1,12/1/2010 9:00,3.39,,France\n"
        '536366,71053,"LANTERN, BIG",6,12/1/2010 8:06,3.39,17850,United Kingdom\n',
        "online-retail",
        {17850: ["71053", "85123A"]},
    ),
    (
        "order_products__prior.csv",
        "order_id,product_id,add_to_cart_order,reordered\n2,33120,1,1\n2,28985,2,1\n3,33754,1,1\n",
        "instacart",
        {2: [33120, 28985], 3: [33754]},
    ),
    (
        "2019-Oct.csv",
        "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n"
        + REES46 % ("05", "view", "44600062")
        + REES46 % ("01", "cart", "3900821"),
        "rees46",
        {541: [3900821, 44600062]},
    ),
    (
        "sessions_train.csv",
        "prev_items,next_item,locale\n\"['B09W9FND7K'\n 'B09JSPLN1M']\",B076THCGSG,UK\n['B076THCGSG'],B09W9FND7K,DE\n",
        "amazon-m2",
        {1: ["B09W9FND7K", "B09JSPLN1M", "B076THCGSG"], 2: ["B076THCGSG", "B09W9FND7K"]},
    ),
    (
        "RAW_interactions.csv",
        'user_id,recipe_id,date,rating,review\n38,40893,2003-02-17,4,"Great.\nAgain, please"\n38,44394,2002-12-01,5,good\n',
        "food.com",
        {38: [44394, 40893]},
    ),
    (
        "JData_Action_201602.csv",
        "user_id,sku_id,time,model_id,type,cate,brand\n266079.0,138778,2016-01-31 23:59:03,,1,8,403\n"
        "266079.0,138779,2016-01-31 23:59:02,0,6,8,403\n",
        "jdata",
        {"266079.0": [138779, 138778]},
    ),
    (
        "QB-video.csv",
        "user_id,item_id,click,follow,like,share,video_category,watching_times,gender,age\n1,4,0,0,0,0,1,0,1,4\n1,12,1,0,0,0,1,1,1,4\n",
        "tenrec",
        {1: [4, 12]},
    ),
    (
        "yambda/likes.csv",
        "uid,timestamp,item_id,is_organic\n100,39420,5,1\n100,39415,6,0\n",
        "yambda",
        {100: [6, 5]},
    ),
    (
        "100k_a.csv",
        "1,34347669376,first_one,5415,5419\n1,34391109664,other2,5410,5412\n",
        "twitch",
        {1: ["other2", "first_one"]},
    ),
    # Read by the names of their columns, as a plain table.
    (
        "MicroLens-50k_pairs.csv",
        "user,item,timestamp\n36121,9580,1583378629552\n36121,9581,1583378620000\n",
        "",
        {36121: [9581, 9580]},
    ),
    (
        "recsys2022/train_sessions.csv",
        "session_id,item_id,date\n3,9655,2020-12-18 21:25:00.373\n3,9654,2020-12-18 21:19:48.093\n",
        "",
        {3: [9654, 9655]},
    ),
    (
        "goodbooks-10k/ratings.csv",
        "user_id,book_id,rating\n1,258,5\n2,4081,4\n2,260,5\n",
        "",
        {1: [258], 2: [4081, 260]},
    ),
    (
        "finefoods/Reviews.csv",
        "Id,ProductId,UserId,ProfileName,HelpfulnessNumerator,HelpfulnessDenominator,Score,Time,Summary,Text\n"
        '1,B001,A3S,d,1,1,5,1303862400,"Good, ""dog"" food",x\n2,B002,A3S,d,0,0,1,1303862300,y,z\n',
        "",
        {"A3S": ["B002", "B001"]},
    ),
    (
        "onion/userid_trackid_timestamp.tsv",
        "user_id\ttrack_id\ttimestamp\n1\tgz3\t2019-01-01 10:00:01\n1\tab2\t2019-01-01 10:00:00\n",
        "",
        {1: ["ab2", "gz3"]},
    ),
    ("sequences.txt", "1 5 6 7\n2 5 8\n3 6\n", "sequences", {1: [5, 6, 7], 2: [5, 8], 3: [6]}),
    (
        "lists.csv",
        'user_id,item_id\n1,"[5, 6, 7]"\n2,"[5, 8]"\n3,"[6]"\n',
        "sequences",
        {1: [5, 6, 7], 2: [5, 8], 3: [6]},
    ),
    ("cells.tsv", "user_id\titem_ids\n1\t5 6 7\n2\t8\n", "sequences", {1: [5, 6, 7], 2: [8]}),
    ("quoted.csv", "user,items\n1,\"['a', 'b']\"\n2,\"['b']\"\n", "sequences", {1: ["a", "b"], 2: ["b"]}),
    ("arrays.jsonl", "[5, 6]\n[6, 7, 8]\n", "sequences", {1: [5, 6], 2: [6, 7, 8]}),
    (
        "objects.jsonl",
        '{"user": "a", "items": [5, 6]}\n{"user": "b", "items": [6]}\n',
        "sequences",
        {"a": [5, 6], "b": [6]},
    ),
]
